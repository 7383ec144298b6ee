import jax
import numpy as np
import optax
import pytest

import powerprop
from powerprop import packnet
from tests.powerprop import packing

OPTIMIZERS = {
  'momentum and decay': lambda: optax.chain(
    optax.add_decayed_weights(1e-2), optax.sgd(0.05, momentum=0.9)
  ),
  'adamw': lambda: powerprop.powerprop(optax.adamw(0.01), 2.0),
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_training_moves_exactly_the_free_weights(name):
  tx = packnet.freeze(OPTIMIZERS[name]())
  tx = optax.MultiSteps(tx, 2).gradient_transformation()
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=2)
  opt_state = tx.init(params)
  step = jax.jit(tx.update)
  for _ in range(4):  # moments of all entries, before any is frozen
    updates, opt_state = step(params, opt_state, params)
    params = optax.apply_updates(params, updates)
  masks = packnet.fixed_share(params, state, 0.5)
  state = packnet.claim(params, state, masks)
  opt_state = packnet.with_sets(opt_state, packnet.training_sets(params, state))
  frozen = params
  for _ in range(4):
    updates, opt_state = step(params, opt_state, params)
    params = optax.apply_updates(params, updates)
  assert step._cache_size() == 1
  for path, mask in masks.items():
    module, leaf = path.split('/')
    old, new = (packing.bits(x[module][leaf]) for x in (frozen, params))
    np.testing.assert_array_equal(old == new, mask)
    packing.assert_same_bits(frozen[module]['b'], params[module]['b'])
