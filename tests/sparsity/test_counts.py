import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity

PARAMS = {
  'net/linear': {'w': np.ones((20, 30)), 'b': np.ones(30)},
  'net/linear_1': {'w': np.ones((30, 10)), 'b': np.ones(10)},
  'net/tiny': {'w': np.ones((3, 2)), 'b': np.ones(2)},
}
SIZES = {'net/linear/w': 600, 'net/linear_1/w': 300, 'net/tiny/w': 6}


def make(**options):
  return sparsity.make_counts(**options)(PARAMS)


def above_one(shapes, density, dense):
  return dict.fromkeys(shapes, 1.2)


def test_uniform_counts_are_rounded_in_each_layer():
  counts = make(forward_density=0.1, backward_density=0.25)
  assert counts.sizes == SIZES
  assert list(counts.forward.values()) == [60, 30, 1]
  assert list(counts.backward.values()) == [150, 75, 2]
  assert counts.forward_densities == dict.fromkeys(SIZES, 0.1)


def test_erdos_renyi_counts_have_the_total_and_full_layers_are_not_sparse():
  counts = make(
    forward_density=0.2, backward_density=0.5, distribution='erdos_renyi'
  )
  assert counts.forward_densities['net/tiny/w'] == 1.0
  assert set(counts.sizes) == {'net/linear/w', 'net/linear_1/w'}
  for kept, density in ((counts.forward, 0.2), (counts.backward, 0.5)):
    assert set(kept) == set(counts.sizes)
    assert abs(sum(kept.values()) + 6 - density * 906) <= 1
  assert counts.forward == {
    path: round(counts.forward_densities[path] * size)
    for path, size in counts.sizes.items()
  }


@pytest.mark.parametrize('dense', ['linear_1', ('linear_1/w$',)])
def test_dense_layers_count_towards_the_density(dense):
  counts = make(forward_density=0.5, dense=dense)
  assert set(counts.sizes) == {'net/linear/w', 'net/tiny/w'}
  assert counts.forward_densities['net/linear_1/w'] == 1.0
  assert abs(sum(counts.forward.values()) + 300 - 453) <= 1


def test_global_counts_are_of_all_together():
  counts = make(forward_density=0.1, backward_density=0.2, scope='global')
  assert (counts.forward, counts.backward) == (91, 181)
  assert counts.sizes == SIZES
  assert counts.forward_densities == dict.fromkeys(SIZES, 0.1)


@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_at_density_one_nothing_is_sparse(scope):
  assert make(forward_density=1.0, scope=scope).sizes == {}
  full = make(forward_density=0.1, backward_density=1.0)
  assert full.backward == SIZES
  counts = sparsity.make_counts(forward_density=0.1, scope=scope)
  assert counts({}).sizes == {}


def test_shapes_suffice_and_the_backward_density_defaults_to_the_forward():
  counts = sparsity.make_counts(forward_density=0.1)
  assert counts(jax.eval_shape(lambda: PARAMS)) == counts(PARAMS)
  assert counts(PARAMS).backward == counts(PARAMS).forward


def test_with_a_pattern_both_counts_are_of_units():
  counts = make(
    forward_density=0.1,
    backward_density=0.5,
    pattern=sparsity.patterns.channels(),
    select=sparsity.matching(r'linear(_1)?/w'),
  )
  assert counts.sizes == {'net/linear/w': 30, 'net/linear_1/w': 10}
  assert counts.forward == {'net/linear/w': 3, 'net/linear_1/w': 1}
  assert counts.backward == {'net/linear/w': 15, 'net/linear_1/w': 5}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'forward_density': 0.0}, r'forward_density in \(0, 1\], got 0\.0'),
    (
      {'forward_density': 0.1, 'backward_density': 1.5},
      r'backward_density in \(0, 1\], got 1\.5',
    ),
    (
      {'forward_density': 0.2, 'backward_density': 0.1},
      r'forward_density=0\.2, backward_density=0\.1',
    ),
    ({'forward_density': 0.1, 'scope': 'model'}, "scope out of .*'model'"),
    ({'forward_density': 0.1, 'layout': 'oihw'}, "layout out of .*'oihw'"),
    (
      {'forward_density': 0.1, 'distribution': 'erk'},
      "distribution out of .*'erk'",
    ),
    (
      {'forward_density': 0.3, 'distribution': above_one},
      r'density of net/linear/w in \(0, 1\], got 1\.2, .* 0\.3 of all',
    ),
    (
      {'forward_density': 0.1, 'scope': 'global', 'dense': ('tiny',)},
      "no dense layers with scope='global'",
    ),
    (
      {'forward_density': 0.1, 'dense': ('conv',)},
      r"dense layers out of .*got 'conv', which matches none",
    ),
    (
      {'forward_density': 0.1, 'select': lambda *_: False},
      r'selects none of:\n  net/linear/b',
    ),
  ],
)
def test_a_bad_option_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_layers_with_fewer_entries_than_neurons_are_named_in_a_warning():
  params = {
    'conv': {'w': jnp.ones((3, 3, 2, 16)), 'b': jnp.ones(16)},  # 288
    'hidden': {'weight': jnp.ones((12, 24))},  # out x in, 288
    'last': {'w': jnp.ones((90, 10))},  # 900
  }

  def tx(density, **options):
    return sparsity.static(optax.sgd(0.1), density=density, **options)

  def messages(make):
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      result = make()
    return result, [str(x.message) for x in caught]

  assert messages(lambda: tx(0.1).init(params))[1] == []  # 29, 29, 90
  assert messages(lambda: tx(0.05, scope='global').init(params))[1] == []
  method = tx(0.08)  # 23, 23, 72
  state, found = messages(lambda: method.init(params))
  [message] = found
  assert 'hidden/weight (23 of 24 x 12), last/w (72 of 90 x 10): ' in message
  assert "distribution='erdos_renyi_kernel'" in message
  assert 'conv' not in message
  zeros = jax.tree.map(jnp.zeros_like, params)
  update = jax.jit(method.update)
  assert messages(lambda: update(zeros, state, params))[1] == []
  compact = sparsity.compact.compact(method)
  _, found = messages(lambda: compact.init(params))
  assert found == [message]
