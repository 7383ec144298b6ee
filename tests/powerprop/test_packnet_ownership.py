import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
from powerprop import packnet
import sparsity
from tests.powerprop import packing


def test_masks_of_all_tasks_are_stored_one_bit_per_entry():
  params = packing.draw(0)
  state = packing.init(params, 300)
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
  stored = [packing.random_masks(state, seed) for seed in range(30)]
  for masks in stored:
    state = packnet.claim(params, state, masks)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
  assert state.masks['hidden_1/w'].nbytes == 300 * 144 // 8
  assert state.owner['hidden_1/w'].dtype == np.uint16
  unpack = jax.jit(packnet.task_masks)
  for task in (1, 2, 17, 30):
    for path, mask in unpack(state, task).items():
      np.testing.assert_array_equal(mask, stored[task - 1][path])


def test_the_first_task_that_uses_an_entry_owns_it():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=5)
  assert packnet.usage(state)['all'] == packnet.Usage(0.0, 1.0, 0.0, 0.0)
  stored = [jax.device_get(packing.random_masks(state, n)) for n in range(4)]
  for masks in stored:
    state = packnet.claim(params, state, masks)
  usage, total = packnet.usage(state), np.zeros(4)
  for path, owner in state.owner.items():
    expected = np.zeros(owner.shape, int)
    for task in range(1, 5):
      is_free = expected == 0
      expected[is_free & stored[task - 1][path]] = task
    np.testing.assert_array_equal(owner, expected)
    is_reused = stored[3][path] & ~is_free
    sets = (expected > 0, expected == 0, expected == 4, is_reused)
    assert usage[path] == pytest.approx([np.mean(x) for x in sets])
    total += [np.sum(x) for x in sets]
    second = packnet.usage(state, 2)[path]
    assert second.owned == np.mean((expected > 0) & (expected <= 2))
  assert usage['all'] == pytest.approx(total / total[:2].sum())
  assert packnet.num_free(state) == total[1]


def test_a_task_starts_from_fresh_free_weights_and_unchanged_owned_ones():
  params, fresh = packing.draw(0), packing.draw(1)
  state = packing.init(params, 3)
  masks = packing.random_masks(state, 2)
  assert set(masks) == {'hidden/w', 'hidden_1/w'}  # heads are never packed
  state = packnet.claim(params, state, masks)
  started = packnet.start_task(params, state, fresh)
  for path, mask in masks.items():
    module = path.split('/')[0]
    old, new = params[module], fresh[module]
    expected = np.where(mask, old['w'], new['w'])
    packing.assert_same_bits(started[module]['w'], jnp.asarray(expected))
    packing.assert_same_bits(started[module]['b'], old['b'])
  packing.assert_same_bits(started['logits'], fresh['logits'])
  state = packnet.init(params, num_tasks=1, per_task_biases=True)
  started = packnet.start_task(params, state, fresh)
  packing.assert_same_bits(started, fresh)  # all of the first task's are


@pytest.mark.parametrize(
  ('per_task_heads', 'per_task_biases'), [(True, False), (False, True)]
)
def test_each_task_has_its_own_heads_or_biases(per_task_heads, per_task_biases):
  first, second = (
    jax.tree.map(lambda x: x + 1, packing.draw(0)),
    packing.draw(1),
  )
  state = packnet.init(
    first,
    num_tasks=3,
    is_head=packing.IS_HEAD,
    per_task_heads=per_task_heads,
    per_task_biases=per_task_biases,
  )
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), state.owner)
  sets = packnet.training_sets(first, state)
  assert all(np.all(mask) for mask in jax.tree.leaves(sets))
  state = packnet.claim(first, state, nothing)
  sets = packnet.training_sets(first, state)
  assert all(np.all(mask) for mask in jax.tree.leaves(sets.forward))
  assert np.all(sets.backward['logits']['w']) == per_task_heads
  assert np.all(sets.backward['logits']['b']) == per_task_heads
  assert np.all(sets.backward['hidden']['b']) == per_task_biases
  state = packnet.claim(second, state, nothing)
  for task, own in ((1, first), (2, second)):
    seen = packnet.task_params(second, state, task)
    head = own if per_task_heads else second
    biases = own if per_task_biases else second
    packing.assert_same_bits(seen['logits'], head['logits'])
    packing.assert_same_bits(seen['hidden']['b'], biases['hidden']['b'])
    assert not np.any(seen['hidden']['w'])


def test_a_task_goes_on_in_an_exhausted_network_only_if_it_may():
  params = packing.draw(0)
  state = packing.init(params, 3)
  full = jax.tree.map(lambda x: jnp.ones(x.shape, bool), state.owner)
  state = packnet.claim(params, state, full)
  assert packnet.num_free(state) == 0
  with pytest.raises(ValueError, match='hidden/w: 96 of 96 owned, 0 free'):
    packnet.start_task(params, state, packing.draw(1))
  with pytest.raises(ValueError, match='task 2, got 0'):
    packnet.check_capacity(state)
  started = packnet.start_task(params, state, packing.draw(1), min_free=0)
  packing.assert_same_bits(started['hidden'], params['hidden'])
  packing.assert_same_bits(started['logits'], packing.draw(1)['logits'])
  masks = packnet.fixed_share(started, state, 0.5)
  state = packnet.claim(started, state, masks)
  assert packnet.usage(state)['all'] == packnet.Usage(1.0, 0.0, 0.0, 1.0)


def test_training_moves_exactly_the_free_weights():
  tx = packnet.freeze(powerprop.powerprop(optax.adamw(0.01), 2.0))
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


PARAMS = packing.draw(0)
OTHER = {**PARAMS, 'logits': PARAMS['hidden']}


def full():
  """Returns the state after the only task, and its masks."""
  state = packing.init(PARAMS, 1)
  masks = packing.random_masks(state, 0)
  return packnet.claim(PARAMS, state, masks), masks


def claim(changes):
  """Claims the only task with masks as changed by path; {}: one is missing."""
  state = packing.init(PARAMS, 1)
  masks = packing.random_masks(state, 0)
  changed = {path: change(masks[path]) for path, change in changes.items()}
  rest = {'hidden_1/w': masks['hidden_1/w']}
  return packnet.claim(PARAMS, state, rest | changed)


def put_sets(inner, params):
  state = packnet.freeze(inner).init(PARAMS) if inner else optax.EmptyState()
  packed = packnet.init(params, num_tasks=1)
  return packnet.with_sets(state, packnet.training_sets(params, packed))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: packnet.claim(PARAMS, *full()), 'at most 1 tasks'),
    (lambda: packnet.task_params(PARAMS, full()[0], 0), 'got 0'),
    (lambda: packnet.usage(full()[0], 2), 'got 2'),
    (lambda: packnet.retraining_sets(PARAMS, packing.init(PARAMS, 1)), 'got 0'),
    (lambda: claim({}), 'a boolean mask for each'),
    (lambda: claim({'hidden/w': lambda x: x[:1]}), 'a boolean mask for each'),
    (
      lambda: packnet.start_task(PARAMS, packing.init(PARAMS, 1), OTHER),
      'logits/b',
    ),
    (lambda: put_sets(optax.sgd(0.1), OTHER), 'expected sets like those'),
    (lambda: put_sets(None, PARAMS), 'one SparseState'),
    (lambda: packnet.init(PARAMS, num_tasks=0), 'at least one task'),
    (
      lambda: packnet.init(
        PARAMS, num_tasks=1, is_head=sparsity.matching('haed')
      ),
      'selects none',
    ),
  ],
)
def test_bad_arguments_are_an_error(call, message):
  with pytest.raises(ValueError, match=message):
    call()
