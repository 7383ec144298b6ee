"""Trees of other libraries, and leaves that are not float32 arrays."""

import pathlib
import re
from typing import NamedTuple

import equinox as eqx
from flax import linen as nn
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from sparsity import select
from tests import oracles
import topkast

PAGE = pathlib.Path(__file__).parents[2] / 'docs/library.md'
COMMON, *EXAMPLES = re.findall(
  r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL
)


def test_the_examples_of_four_libraries_reach_the_same_densities():
  assert len(EXAMPLES) == 4
  for example in EXAMPLES:
    names = {}
    exec(COMMON + example, names)
    sets = names['state'].sets
    kept = {
      mask.size: (int(mask.sum()), int(backward.sum()))
      for mask, backward in zip(*map(jax.tree.leaves, sets), strict=True)
      if not jnp.all(mask)
    }
    assert kept == {864: (209, 418), 320: (28, 56)}


def make_tx():
  return topkast.topkast(
    powerprop.powerprop(optax.adam(0.1), 2.0),
    forward_density=0.25,
    backward_density=0.5,
  )


def train(params):
  """Returns the parameters after a step, and the optimizer state."""
  tx = make_tx()
  state = tx.init(params)
  weights = topkast.weights(powerprop.to_weights(params, 2.0), state)
  gradients = jax.tree.map(jnp.ones_like, weights)
  updates, state = tx.update(gradients, state, params)
  return optax.apply_updates(params, updates), state


class Norms(eqx.Module):
  body: list
  norm: eqx.nn.LayerNorm
  table: eqx.nn.Embedding

  def __init__(self, key):
    self.body = [eqx.nn.Conv2d(3, 4, 3, key=key), jax.nn.relu]
    self.norm = eqx.nn.LayerNorm((4, 4, 4))
    self.table = eqx.nn.Embedding(5, 4, key=key)


class Layer(NamedTuple):
  weight: jax.Array
  bias: jax.Array


class Net(nnx.Module):
  def __init__(self):
    self.layers = nnx.List([nnx.Linear(4, 8, rngs=nnx.Rngs(0))])
    self.norm = nnx.LayerNorm(8, rngs=nnx.Rngs(0))


def linen_params():
  init = nn.with_partitioning(nn.initializers.normal(), (None, None))
  dense = nn.Dense(3, kernel_init=init)
  return dense.init(jax.random.key(0), jnp.ones((1, 4)))


def draw(*shape):
  return jax.random.normal(jax.random.key(0), shape)


TREES = {
  'equinox': (
    lambda: eqx.filter(Norms(jax.random.key(0)), eqx.is_inexact_array),
    ['body/0(Conv2d)/weight'],
  ),
  'linen': (linen_params, ['params/kernel']),
  'nnx module': (Net, ['layers/0(Linear)/kernel']),
  'nnx state': (lambda: nnx.state(Net()), ['layers/0/kernel']),
  'named tuple': (
    lambda: {'a': Layer(draw(4, 3), draw(3))},
    ['a(Layer)/weight'],
  ),
  'flat mapping': (
    lambda: hk.data_structures.to_immutable_dict(
      {'b': {'w': draw(4, 3)}, 'a': {'b': draw(4), 'w': draw(4, 5)}}
    ),
    ['a/w', 'b/w'],
  ),
  'plain': (
    lambda: [
      {'layer': draw(4, 8), 'b1': draw(2, 8), 'one': draw(1, 8)},
      (draw(8, 2), draw(2), {'embed': draw(3, 4)}),
    ],
    ['0/layer', '1/0'],
  ),
  'other leaves': (
    lambda: {'l': {'w': draw(4, 3), 'scale': 1.5, 'n': 3, 'none': None}},
    ['l/w'],
  ),
  'one text': (
    lambda: {'x/w': draw(4, 3), 'x': {'w': draw(4, 3)}, 'y/w': draw(2, 2)},
    ['x/w', 'x#2/w', 'y/w'],
  ),
}


@pytest.mark.parametrize('name', TREES)
def test_weights_of_a_tree_are_sparse_and_their_entries_outside_b_stay(name):
  make, expected = TREES[name]
  params = make()
  assert list(select.selected_paths(params, sparsity.is_weight)) == expected
  after, state = train(params)
  assert jax.tree.structure(after) == jax.tree.structure(params)
  # The sets are those of the next step; the first are chosen from `params`.
  backward = dict(select.path_leaves(make_tx().init(params).sets.backward))
  for (path, x), (_, new) in zip(
    select.path_leaves(params), select.path_leaves(after), strict=True
  ):
    moved = np.asarray(x) != np.asarray(new)
    np.testing.assert_array_equal(moved, backward[path])
    if path in expected:
      assert moved.sum() == round(0.5 * x.size)
  assert jax.tree.structure(state.sets.forward) == jax.tree.structure(params)


def test_the_optimizer_of_nnx_holds_the_sets():
  net = Net()
  optimizer = nnx.Optimizer(net, make_tx(), wrt=nnx.Param)
  weights = topkast.weights(nnx.state(net, nnx.Param), optimizer.opt_state)
  optimizer.update(net, jax.tree.map(jnp.ones_like, weights))
  assert int((weights['layers'][0]['kernel'][...] != 0).sum()) == 8
  sets = topkast.active_sets(optimizer.opt_state)
  # A single True of each dense leaf.
  assert sum(int(x.sum()) for x in jax.tree.leaves(sets.forward)) == 8 + 3


def linen_dense():
  return nn.Dense(
    8,
    kernel_init=nn.with_partitioning(nn.initializers.ones, ('i', 'o')),
    bias_init=nn.with_partitioning(nn.initializers.zeros, ('o',)),
  )


def init_linen(mesh):
  def init(key):
    params = linen_dense().init(key, jnp.ones((1, 4)))['params']
    return make_tx().init(params)

  key = jax.random.key(0)
  shardings = nn.get_sharding(jax.eval_shape(init, key), mesh)
  return jax.jit(init, out_shardings=shardings)(key)


def init_nnx(mesh):
  def init():
    net = nnx.Linear(
      4,
      8,
      rngs=nnx.Rngs(0),
      kernel_init=nnx.with_partitioning(nnx.initializers.ones, ('i', 'o')),
      bias_init=nnx.with_partitioning(nnx.initializers.zeros, ('o',)),
    )
    return nnx.Optimizer(net, make_tx(), wrt=nnx.Param)

  with jax.set_mesh(mesh):
    state = nnx.state(nnx.eval_shape(init))
    shardings = nnx.get_named_sharding(state, mesh)
    return jax.jit(lambda: nnx.state(init()), out_shardings=shardings)()


@pytest.mark.parametrize('init', [init_linen, init_nnx])
def test_sets_are_sharded_as_flax_annotates_the_parameters(init):
  axes = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((1, 1), ('i', 'o'), axis_types=axes)
  sets = [x for x in jax.tree.leaves(init(mesh)) if x.dtype == bool]
  # Sets A and B of kernel and bias; the rest is of the check of parameters.
  assert sorted(x.size for x in sets if x.ndim == 2) == [32, 32]
  assert [x.size for x in sets if x.shape == (8,)] == [8, 8]


@pytest.mark.parametrize(
  ('leaf', 'message'),
  [
    ('relu', r'expected arrays, got str at a/x: .*eqx\.filter\(model'),
    (jax.nn.relu, r'got custom_jvp at a/x: .*nnx\.state\(model, nnx\.Param\)'),
    (True, r'got bool at a/x'),
    (jax.random.key(0), r'got PRNGKeyArray at a/x'),
    (np.array(['a']), r'got ndarray at a/x'),
  ],
)
def test_a_leaf_that_is_no_array_is_named_by_every_function(leaf, message):
  params = {'a': {'w': jnp.ones((2, 2)), 'x': leaf}}
  for fn in (make_tx().init, lambda p: powerprop.to_weights(p, 2.0)):
    with pytest.raises(ValueError, match=message):
      fn(params)
  assert 'no array' in sparsity.describe(params)


def test_complex_weights_are_refused_and_other_complex_leaves_are_not():
  params = {'a': {'w': jnp.ones((2, 2), jnp.complex64)}}
  with pytest.raises(ValueError, match='real weights, got complex64 at a/w'):
    make_tx().init(params)
  with pytest.raises(ValueError, match='floating-point parameters, got comp'):
    powerprop.to_weights(params, 2.0)
  train(params | {'b': {'w': draw(2, 2)}, 'a': {'b': jnp.ones(2, complex)}})


TABLE = """\
body/0(Conv2d)/weight    (4, 3, 3, 3)  selected
body/0(Conv2d)/bias      (4, 1, 1)     not named w, kernel or weight
body/1                   custom_jvp    no array
norm(LayerNorm)/weight   (4, 4, 4)     normalization
norm(LayerNorm)/bias     (4, 4, 4)     not named w, kernel or weight
table(Embedding)/weight  (5, 4)        embedding"""


def test_a_table_says_why_a_parameter_is_left_out():
  assert sparsity.describe(Norms(jax.random.key(0))) == TABLE
  tree = [(jnp.ones((2, 2)), jnp.ones(2, int), {'bias': jnp.ones((2, 2))})]
  assert re.findall(r'  (\w.*)', sparsity.describe(tree)) == [
    'selected',
    'not floating-point',
    'named like a bias, scale or embedding',
  ]
  both = sparsity.all_of(sparsity.is_any, sparsity.is_weight)
  assert sparsity.describe(tree, both) == sparsity.describe(tree)
  is_conv = sparsity.all_of(sparsity.is_weight, sparsity.matching('Conv'))
  assert 'left out by the predicate' in sparsity.describe(
    {'linear': {'w': jnp.ones((2, 2))}}, is_conv
  )
  assert sparsity.describe({}) == ''


HWIO, OIHW = (3, 3, 8, 16), (16, 8, 3, 3)
LAYOUTS = [('w', None), ('w', 'in_out'), ('weight', 'in_out')]
SWAPPED = [('weight', None), ('w', 'out_in'), ('weight', 'out_in')]


def swapped(x):
  return jnp.moveaxis(x, (-2, -1), (1, 0))


@pytest.mark.parametrize('distribution', ['erdos_renyi', 'erdos_renyi_kernel'])
def test_densities_and_patterns_do_not_depend_on_the_layout(distribution):
  scores = {'conv': draw(*HWIO), 'linear': draw(24, 32)}

  def masks(name, layout, place=lambda x: x):
    tree = {module: {name: place(x)} for module, x in scores.items()}
    tx = sparsity.snip(
      optax.sgd(0.1),
      scores=tree,
      density=0.25,
      scope='layer',
      distribution=distribution,
      pattern=sparsity.patterns.channels(),
      layout=layout,
    )
    forward = tx.init(tree).sets.forward
    return {module: x[name] for module, x in forward.items()}

  expected = masks(*LAYOUTS[0])
  assert not all(jnp.all(x) for x in expected.values())
  for name, layout in LAYOUTS:
    oracles.assert_same(masks(name, layout), expected)
  expected = jax.tree.map(swapped, expected)
  for name, layout in SWAPPED:
    oracles.assert_same(masks(name, layout, swapped), expected)


@pytest.mark.parametrize(
  'pattern',
  [
    sparsity.patterns.n_of_m(2, 4),
    sparsity.patterns.block(2, 4),
    sparsity.patterns.channels(),
  ],
  ids=lambda pattern: pattern.name,
)
def test_growth_within_a_pattern_does_not_depend_on_the_layout(pattern):
  x = draw(*HWIO)
  given = sparsity.patterns.topk_masks(pattern, {'w': x}, {'w': 3})
  expected = sparsity.patterns.topk_masks(
    pattern, {'w': -x}, {'w': 2}, given=given
  )['w']
  assert swapped(x).shape == OIHW
  found = sparsity.patterns.topk_masks(
    pattern,
    {'weight': -swapped(x)},
    {'weight': 2},
    given={'weight': swapped(given['w'])},
  )['weight']
  np.testing.assert_array_equal(found, swapped(expected))
