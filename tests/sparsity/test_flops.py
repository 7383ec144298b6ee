"""FLOPs and bytes against formulas and published numbers."""

import math

import jax
import jax.numpy as jnp
import pytest

from experiments.models import resnet
import sparsity
from sparsity import flops

KEY = jax.random.key(0)


def shape(*axes):
  return jax.ShapeDtypeStruct(axes, jnp.float32)


def traced(network, images):
  params, state = jax.eval_shape(lambda x: network.init(KEY, x, True), images)

  def apply(params, state, images):
    return network.apply(params, state, None, images, False)[0]

  return flops.count(apply, params, state, images)


@pytest.fixture(scope='module')
def resnet50():
  network = resnet.resnet50(num_classes=1000, compute_dtype='bfloat16')
  return traced(network, shape(1, 224, 224, 3))


def test_resnet50_makes_4089_million_products(resnet50):
  assert flops.forward(resnet50) == 2 * 4_089_184_256
  assert resnet50.other == 0
  assert sum(layer.size for layer in resnet50.layers) == 25_557_032
  used = [layer for layer in resnet50.layers if layer.flops]
  assert sum(layer.size for layer in used) == 25_502_912
  assert len(used) == 54


# README of google-research/rigl: distribution, sparsity, FLOPs of inference and
# of five times longer training as fractions of dense.
RIGL = [
  ('uniform', 0.9, 0.13, 0.66),
  ('uniform', 0.965, 0.07, 0.34),
  ('erdos_renyi_kernel', 0.9, 0.24, 1.23),
  ('erdos_renyi_kernel', 0.965, 0.09, 0.45),
]


def as_rigl_counts(network):
  """Returns the network with the additional FLOPs that RigL counts.

  One FLOP for the activation of each output, whatever the density; and 115
  instead of 112 output pixels a side for the first convolution, as if its
  padded image of 230 pixels were padded again. (The repository's
  Resnet_50_Param_Flops_Counting.ipynb and sparse_utils.get_stats, counting.py
  of google-research/micronet_challenge.)
  """
  layers, num_outputs = [], 0
  for layer in network.layers:
    if layer.path == 'stem/conv/w':
      assert layer.flops == 2 * layer.size * 112**2
      layer = layer._replace(flops=2 * layer.size * 115**2)
    if layer.flops:
      num_outputs += layer.flops * layer.shape[-1] // (2 * layer.size)
    layers.append(layer)
  return flops.Network(tuple(layers), network.other + num_outputs)


@pytest.mark.parametrize(('name', 'level', 'inference', 'training'), RIGL)
def test_fractions_for_resnet50_are_those_published_by_rigl(
  resnet50, name, level, inference, training
):
  network = as_rigl_counts(resnet50)
  assert f'{flops.forward(network):.1e}' == '8.2e+09'
  weights = {layer.path: layer.shape for layer in network.layers if layer.flops}
  if name == 'uniform':  # the first convolution is dense, outside the density
    del weights['stem/conv/w']
  distribution = getattr(sparsity, name)
  densities = distribution(weights, 1 - level)
  dense = flops.forward(network)
  assert round(flops.forward(network, densities) / dense, 2) == inference
  cost = flops.train_rigl(network, densities, refresh_every=100)
  assert round(5 * cost / (3 * dense), 2) == training


NETWORK = flops.Network(
  (
    flops.Layer('a/w', (4, 5), 20, 400),
    flops.Layer('b/b', (5,), 5, 0),
    flops.Layer('b/w', (5, 2), 10, 200),
  ),
  50,
)
DENSITIES = {'a/w': 0.25}


def test_sparse_layers_cost_their_density_and_steps_three_passes():
  assert flops.forward(NETWORK) == 650
  assert flops.forward(NETWORK, DENSITIES) == 350
  assert flops.train(NETWORK) == 3 * 650
  assert flops.train(NETWORK, DENSITIES) == 3 * 350
  assert flops.train(NETWORK, DENSITIES, {'a/w': 0.5}) == 2 * 350 + 450

  steps = [3 * 350] * 9 + [2 * 350 + 650]
  cost = flops.train_rigl(NETWORK, DENSITIES, refresh_every=9)
  assert math.isclose(cost, sum(steps) / len(steps))


@pytest.mark.parametrize(
  ('num_steps', 'start', 'end', 'every'),
  [(40, 10, 30, 7), (25, 10, 30, 4), (5, 10, 30, 5), (40, 0, 3, 10)],
)
def test_gradual_pruning_is_a_mean_over_its_steps(num_steps, start, end, every):
  def schedule(step):
    return 0.2 + 0.8 * (1 - (step - start) / (end - start)) ** 3

  is_due = sparsity.every_to(end, every, start=start)
  density, total = 1.0, 0.0
  for step in range(num_steps):
    if is_due(step):
      density = schedule(step)
    total += 3 * flops.forward(NETWORK, {'a/w': density, 'b/w': density})
  unpruned = flops.unpruned_gradual(
    num_steps=num_steps, start=start, end=end, prune_every=every
  )
  cost = flops.train_pruned(
    NETWORK, {'a/w': 0.2, 'b/w': 0.2}, unpruned=unpruned
  )
  assert math.isclose(cost, total / num_steps, rel_tol=1e-6)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: flops.forward(NETWORK, {'c/w': 0.5}), 'got c/w: 0.5'),
    (
      lambda: flops.train_pruned(NETWORK, DENSITIES, unpruned=-0.1),
      r'unpruned in \[0, 1\], got -0.1',
    ),
    (
      lambda: flops.unpruned_gradual(
        num_steps=9, start=5, end=5, prune_every=1
      ),
      '0 <= start < end',
    ),
    (lambda: flops.num_bytes(8, 9), 'num_kept from 0 to 8, got 9'),
  ],
)
def test_a_bad_argument_is_an_error(call, message):
  with pytest.raises(ValueError, match=message):
    call()
