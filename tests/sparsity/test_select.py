import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import select


def shapes(forward, *args):
  net = hk.transform_with_state(forward)
  return jax.eval_shape(net.init, jax.random.key(0), *args)[0]


def paths(params, predicate=select.is_weight):
  return list(select.selected_paths(params, predicate))


def test_biases_embeddings_and_norms_are_never_weights():
  def forward(tokens, images):
    x = hk.Embed(7, 4)(tokens)
    x = hk.Linear(4, name='patch_embed')(x)
    x = hk.Linear(4, name='embedding')(x)
    x = hk.Linear(4, name='embed_2')(x)
    x = hk.LayerNorm(-1, True, True)(x)
    x = hk.MultiHeadAttention(2, 2, w_init=jnp.zeros)(x, x, x)
    x = hk.RMSNorm(-1)(x)
    y = hk.Conv2D(4, 3)(images)
    y = hk.BatchNorm(True, True, 0.9)(y, is_training=True)
    y = hk.GroupNorm(2)(y)
    y = hk.InstanceNorm(True, True)(y)
    return hk.Linear(3, name='embedder')(x).sum() + y.sum()

  params = shapes(forward, jnp.zeros((1, 5), int), jnp.ones((1, 8, 8, 3)))
  attention = 'multi_head_attention'
  assert sorted(paths(params)) == sorted(
    ['conv2_d/w', 'embedder/w']
    + [f'{attention}/{part}/w' for part in ('query', 'key', 'value', 'linear')]
  )


TREE = {
  'net/linear': {'w': np.ones((2, 3)), 'b': np.ones(3)},
  'net/linear_1': {'w': np.ones((3, 2)), 'b': np.ones(2)},
}


@pytest.mark.parametrize(
  ('predicate', 'expected'),
  [
    (select.is_any, ['0/b', '0/w', '1/b', '1/w']),
    (select.matching(r'linear/'), ['0/b', '0/w']),
    (select.all_of(select.is_weight, select.matching('linear_1')), ['1/w']),
    (
      select.any_of(select.is_weight, select.matching('linear_1')),
      ['0/w', '1/b', '1/w'],
    ),
    (select.none_of(select.matching('linear_1'), select.is_weight), ['0/b']),
  ],
)
def test_predicates_combine(predicate, expected):
  short = {'0': 'net/linear', '1': 'net/linear_1'}
  assert paths(TREE, predicate) == [
    short[module] + '/' + name
    for module, name in (path.split('/') for path in expected)
  ]


def test_a_predicate_that_selects_nothing_is_an_error():
  with pytest.raises(ValueError, match=r"regular expression, got '\('"):
    select.matching('(')
  with pytest.raises(
    ValueError,
    match=r'none of:\n  net/linear/b +\(3,\) +left out by the predicate\n  n',
  ):
    select.selected(TREE, select.matching('conv'))


def test_an_array_by_itself_is_selected_and_an_empty_tree_stays_as_it_is():
  assert select.selected(np.ones(3), select.is_weight) is True
  assert paths(np.ones(3)) == ['']
  for tree in ({}, {'module': {}}, (), None):
    assert select.selected(tree, select.is_weight) == tree
    assert select.selected_paths(tree, select.is_weight) == {}


@pytest.mark.parametrize(
  ('module', 'is_selected'),
  [
    ('net/BatchNorm_0', False),
    ('batchnorm', False),
    ('block/norm1', False),
    ('batch_normalization_2', False),
    ('layers/0(LayerNorm)', False),
    ('net/layer_norm_1', False),
    ('layer_norm_mlp/linear', True),
    ('norm(Scale)', False),
    ('tokens(Embedding)', False),
    ('TokenEmbed_0', False),
    ('norm_mlp/Dense_0', True),
    ('norm(Block)/0(Linear)', True),
    ('normal', True),
    ('normalizer', True),
    ('embedder', True),
    ('layers/0(Linear)', True),
  ],
)
def test_norms_and_embeddings_are_told_by_module_or_class(module, is_selected):
  for name in ('w', 'kernel', 'weight'):
    assert select.is_weight(module, name, np.ones((2, 2))) == is_selected
    assert not select.is_weight(module, name, np.ones((2, 2), int))
    assert not select.is_weight(module, name, np.ones(64))
