import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
from powerprop import packnet
import sparsity
from tests import oracles

NUM_TASKS = 4
DENSITIES = (0.8, 0.4, 0.2, 0.1)
IS_HEAD = sparsity.matching('^logits/')

OPTIMIZERS = {
  'momentum and decay': lambda: optax.chain(
    optax.add_decayed_weights(1e-2), optax.sgd(0.05, momentum=0.9)
  ),
  'adamw': lambda: optax.adamw(0.01, weight_decay=0.1),
}


def draw(seed):
  """Returns parameters; the second layer does not fill its last byte."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)

  return {
    'hidden': {'w': normal(6, 16), 'b': jnp.zeros(16)},
    'hidden_1': {'w': normal(16, 9), 'b': jnp.zeros(9)},
    'logits': {'w': normal(9, 3), 'b': jnp.zeros(3)},
  }


def forward(weights, inputs):
  for name in ('hidden', 'hidden_1'):
    inputs = inputs @ weights[name]['w'] + weights[name]['b'][None]
    inputs = jax.nn.relu(inputs)
  return inputs @ weights['logits']['w'] + weights['logits']['b'][None]


def draw_task(task):
  rng = np.random.default_rng(100 + task)
  inputs = rng.normal(size=(64, 6)).astype(np.float32)
  return inputs, np.argmax(inputs @ rng.normal(size=(6, 3)), 1)


def loss(weights, inputs, labels):
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(
      forward(weights, inputs), labels
    )
  )


def bits(tree):
  return jax.tree.map(lambda x: np.asarray(x).view(np.uint32), tree)


def assert_same_bits(a, b):
  jax.tree.map(np.testing.assert_array_equal, bits(a), bits(b))


class Learner:
  """Learns tasks one after another with programs compiled once."""

  def __init__(self, optimizer, *, alpha=1.0, keep_state=False, **kinds):
    self.tx = packnet.freeze(powerprop.powerprop(optimizer, alpha))
    self.alpha, self.keep_state = alpha, keep_state
    self.params = self.draw(0)
    self.state = packnet.init(
      self.params, num_tasks=NUM_TASKS, is_head=IS_HEAD, **kinds
    )
    self.opt_state = self.tx.init(self.params)
    self.predict = jax.jit(self._predict)
    self.train = jax.jit(self._train)
    self.evaluate = jax.jit(self._evaluate)

  def draw(self, seed):
    return powerprop.from_weights(draw(seed), self.alpha)

  def _predict(self, params, state, task, inputs):
    params = packnet.task_params(params, state, task)
    return forward(powerprop.to_weights(params, self.alpha), inputs)

  def _train(self, params, opt_state, inputs, labels):
    def step(_, carry):
      params, opt_state = carry
      weights = powerprop.to_weights(params, self.alpha)
      weights = sparsity.forward_weights(weights, opt_state)
      grads = jax.grad(loss)(weights, inputs, labels)
      updates, opt_state = self.tx.update(grads, opt_state, params)
      return optax.apply_updates(params, updates), opt_state

    return jax.lax.fori_loop(0, 60, step, (params, opt_state))

  def _evaluate(self, params, inputs, labels):
    logits = forward(powerprop.to_weights(params, self.alpha), inputs)
    return jnp.mean(jnp.argmax(logits, 1) == labels)

  def fit(self, sets, task):
    if not self.keep_state:
      self.opt_state = self.tx.init(self.params)
    self.opt_state = packnet.with_sets(self.opt_state, sets)
    self.params, self.opt_state = self.train(
      self.params, self.opt_state, *draw_task(task)
    )

  def learn(self, task, method):
    self.params = packnet.start_task(self.params, self.state, self.draw(task))
    self.fit(packnet.training_sets(self.params, self.state), task)
    if method == 'packnet':
      masks = packnet.fixed_share(self.params, self.state, 0.4)
      self.state = packnet.claim(self.params, self.state, masks)
      self.fit(packnet.retraining_sets(self.params, self.state), task)
      self.state = packnet.store_copies(self.params, self.state)
    else:
      inputs, labels = draw_task(task)
      found = packnet.search(
        lambda params: self.evaluate(params, inputs, labels),
        self.params,
        self.state,
        densities=DENSITIES,
        gamma=0.8,
      )
      self.state = packnet.claim(self.params, self.state, found.masks)

  def logits(self, task):
    return self.predict(self.params, self.state, task, draw_task(task)[0])


@pytest.mark.parametrize(
  ('optimizer', 'method', 'options'),
  [
    ('momentum and decay', 'packnet', {'keep_state': True}),
    ('adamw', 'efficient', {'alpha': 2.0, 'per_task_biases': True}),
    pytest.param('adamw', 'packnet', {'alpha': 2.0}, marks=pytest.mark.nightly),
    pytest.param(
      'momentum and decay',
      'efficient',
      {'keep_state': True, 'per_task_heads': False},
      marks=pytest.mark.nightly,
    ),
  ],
)
def test_predictions_of_earlier_tasks_are_bitwise_unchanged(
  optimizer, method, options
):
  learner = Learner(OPTIMIZERS[optimizer](), **options)
  remembered, accuracies = {}, []
  for task in range(1, NUM_TASKS + 1):
    before = learner.params
    learner.learn(task, method)
    assert not np.array_equal(
      before['hidden']['w'], learner.params['hidden']['w']
    )
    remembered[task] = bits(learner.logits(task))
    labels = draw_task(task)[1]
    accuracies.append(np.mean(learner.logits(task).argmax(1) == labels))
    for earlier, logits in remembered.items():
      np.testing.assert_array_equal(bits(learner.logits(earlier)), logits)
  assert learner.predict._cache_size() == 1
  assert learner.train._cache_size() == 1
  assert learner.evaluate._cache_size() == (method == 'efficient')
  # The first task has the whole network, so that it learns.
  assert accuracies[0] > 0.6


@pytest.mark.parametrize(
  ('name', 'wrap'), [('momentum and decay', 'multi_steps'), ('adamw', 'plain')]
)
def test_momentum_and_decay_never_move_owned_weights(name, wrap):
  tx = packnet.freeze(OPTIMIZERS[name]())
  if wrap == 'multi_steps':
    tx = optax.MultiSteps(tx, 2).gradient_transformation()
  params = draw(0)
  state = packnet.init(params, num_tasks=2)
  opt_state = tx.init(params)
  step = jax.jit(tx.update)
  for _ in range(4):  # momentum of all entries, before any is frozen
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
    old, new = bits(frozen[module][leaf]), bits(params[module][leaf])
    np.testing.assert_array_equal(old == new, mask)
    assert_same_bits(frozen[module]['b'], params[module]['b'])


def random_masks(state, seed, density=0.3):
  rng = np.random.default_rng(seed)
  return {
    path: jnp.asarray(rng.random(owner.shape) < density)
    for path, owner in state.owner.items()
  }


def test_masks_of_all_tasks_are_stored_one_bit_per_entry():
  params = draw(0)
  state = packnet.init(params, num_tasks=100, is_head=IS_HEAD)
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
  stored = [random_masks(state, seed) for seed in range(30)]
  for masks in stored:
    state = packnet.claim(params, state, masks)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
  assert state.masks['hidden_1/w'].nbytes == 100 * 144 // 8
  unpack = jax.jit(packnet.task_masks)
  for task in (1, 2, 17, 30):
    for path, mask in unpack(state, task).items():
      np.testing.assert_array_equal(mask, stored[task - 1][path])


def test_sizes_and_tasks_beyond_one_byte_are_packed():
  params = {'w': jnp.ones((3, 3))}
  state = packnet.init(params, num_tasks=300)
  assert state.owner['w'].dtype == np.uint16
  mask = jnp.asarray(np.arange(9).reshape(3, 3) % 4 == 0)
  for _ in range(2):
    state = packnet.claim(params, state, {'w': mask})
  np.testing.assert_array_equal(packnet.task_masks(state, 2)['w'], mask)


def test_the_first_task_that_uses_an_entry_owns_it():
  params = draw(0)
  state = packnet.init(params, num_tasks=5)
  stored = [
    {path: np.asarray(mask) for path, mask in random_masks(state, n).items()}
    for n in range(4)
  ]
  for masks in stored:
    state = packnet.claim(params, state, masks)
  total = dict.fromkeys(('owned', 'new', 'reused', 'size'), 0)
  for path, owner in state.owner.items():
    expected = np.zeros(owner.size, int)
    reused = np.zeros(owner.size, bool)
    for entry in range(owner.size):
      for task in range(1, 5):
        if stored[task - 1][path].flat[entry]:
          reused[entry] = task == 4 and expected[entry] > 0
          expected[entry] = expected[entry] or task
    np.testing.assert_array_equal(owner.reshape(-1), expected)
    counts = {
      'owned': np.sum(expected > 0),
      'new': np.sum(expected == 4),
      'reused': np.sum(reused),
      'size': owner.size,
    }
    shares = packnet.usage(state)[path]
    for name in ('owned', 'new', 'reused'):
      assert getattr(shares, name) == counts[name] / owner.size
    assert shares.free == pytest.approx(np.mean(expected == 0))
    assert packnet.usage(state, 2)[path].owned == np.mean(
      (expected > 0) & (expected <= 2)
    )
    total = {name: total[name] + counts[name] for name in total}
  shares = packnet.usage(state)['all']
  for name in ('owned', 'new', 'reused'):
    assert getattr(shares, name) == total[name] / total['size']
  assert packnet.num_free(state) == total['size'] - total['owned']


def test_usage_before_the_first_task_is_nothing():
  state = packnet.init(draw(0), num_tasks=1)
  assert packnet.usage(state)['all'] == packnet.Usage(0.0, 1.0, 0.0, 0.0)


def rounded(seed):
  """Returns parameters with many ties."""
  return jax.tree.map(lambda x: jnp.round(x * 5) / 5, draw(seed))


def test_packnet_gives_each_task_its_fraction_of_the_free_entries():
  params = rounded(0)
  state = packnet.init(params, num_tasks=3, is_head=IS_HEAD)
  owned = {path: np.zeros(x.shape, int) for path, x in state.owner.items()}
  for task in (1, 2, 3):
    params = packnet.start_task(params, state, rounded(task))
    masks = packnet.fixed_share(params, state, 0.3)
    for path, mask in masks.items():
      weights = np.asarray(params[path.split('/')[0]]['w'])
      free = np.flatnonzero(owned[path] == 0)
      chosen = free[oracles.largest(weights.flat[free], round(0.3 * free.size))]
      owned[path].flat[chosen] = task
      np.testing.assert_array_equal(mask, owned[path] > 0)
    state = packnet.claim(params, state, masks)
    sets = packnet.retraining_sets(params, state)
    for path, owner in owned.items():
      np.testing.assert_array_equal(state.owner[path], owner)
      module = path.split('/')[0]
      np.testing.assert_array_equal(sets.forward[module]['w'], owner > 0)
      np.testing.assert_array_equal(sets.backward[module]['w'], owner == task)
      assert np.all(sets.backward[module]['b']) == (task == 1)
    assert np.all(sets.backward['logits']['w'])


def test_packnet_keeps_at_least_one_entry_and_none_of_a_full_layer():
  params = {'a': {'w': jnp.ones((1, 3))}, 'b': {'w': jnp.ones((2, 2))}}
  state = packnet.init(params, num_tasks=2)
  full = {'a/w': jnp.ones((1, 3), bool), 'b/w': jnp.zeros((2, 2), bool)}
  state = packnet.claim(params, state, full)
  masks = packnet.fixed_share(params, state, 0.01)
  state = packnet.claim(params, state, masks)
  assert packnet.usage(state)['a/w'].new == 0
  assert packnet.usage(state)['b/w'].new == 0.25


def make_evaluate(accuracy_of_share):
  """Returns an accuracy that depends on the density, and its inputs."""
  seen = []

  def evaluate(params):
    seen.append(jax.tree.map(np.asarray, params))
    share = np.mean(seen[-1]['hidden']['w'] != 0)
    return accuracy_of_share(share)

  return evaluate, seen


def run_search(params, accuracy_of_share, *, gamma, **options):
  options = {'densities': DENSITIES, **options}
  state = packnet.init(params, num_tasks=2, is_head=IS_HEAD)
  # Owned weights take part like free ones.
  state = packnet.claim(params, state, random_masks(state, 1))
  evaluate, seen = make_evaluate(accuracy_of_share)
  found = packnet.search(evaluate, params, state, gamma=gamma, **options)
  return found, seen


@pytest.mark.parametrize('method', ['linear', 'bisection'])
@pytest.mark.parametrize('num_passing', [0, 2, 4])
def test_search_finds_the_lowest_density_with_enough_accuracy(
  method, num_passing
):
  params = draw(3)
  # Of 96 entries: 77, 38, 19, 10 at the four densities.
  least = (96, 77, 38, 19, 10)[num_passing] / 96
  found, seen = run_search(
    params,
    lambda share: 0.8 if share >= least else 0.7,
    gamma=0.9,
    method=method,
  )
  density = (1.0, *DENSITIES)[num_passing]
  assert found.density == density
  assert found.accuracy == found.full_accuracy == 0.8
  for path, mask in found.masks.items():
    weights = np.asarray(params[path.split('/')[0]]['w'])
    expected = oracles.largest(weights, round(density * weights.size))
    np.testing.assert_array_equal(mask, expected)
  assert_same_bits(seen[0], params)  # first with all weights
  assert len(found.tried) == len(seen) - 1
  if method == 'linear':
    assert len(found.tried) == min(num_passing + 1, 4)
  else:
    assert len(found.tried) <= 3


def test_every_density_is_tried_with_its_largest_weights_and_all_else():
  params = rounded(4)
  found, seen = run_search(params, lambda share: share, gamma=0.0)
  assert [density for density, _ in found.tried] == list(DENSITIES)
  for density, tried in zip(DENSITIES, seen[1:], strict=True):
    for module in ('hidden', 'hidden_1'):
      weights = np.asarray(params[module]['w'])
      mask = oracles.largest(weights, round(density * weights.size))
      np.testing.assert_array_equal(tried[module]['w'], weights * mask)
      assert_same_bits(tried[module]['b'], params[module]['b'])
    assert_same_bits(tried['logits'], params['logits'])


def test_linear_search_stops_at_the_first_failure_or_nan():
  found, seen = run_search(
    draw(3), lambda share: 0.1 if 0.3 < share < 0.5 else 0.8, gamma=1.0
  )
  assert found.density == 0.8
  assert found.tried == ((0.8, 0.8), (0.4, 0.1))
  assert len(seen) == 3
  found, _ = run_search(
    draw(3), lambda share: 0.8 if share > 0.5 else float('nan'), gamma=0.0
  )
  assert found.density == 0.8


def test_further_densities_and_searches_do_not_recompile(caplog, monkeypatch):
  def compiled():
    return [r for r in caplog.records if 'Compiling' in r.getMessage()]

  params = draw(5)
  evaluate = jax.jit(lambda params: jnp.mean(params['hidden']['w'] != 0))
  state = packnet.init(params, num_tasks=2, is_head=IS_HEAD)
  densities = (0.9, 0.7, 0.5, 0.3, 0.1)  # as many as in no other test
  find = functools.partial(packnet.search, evaluate, densities=densities)
  assert len(find(params, state, gamma=0.8).tried) == 2
  state = packnet.claim(params, state, random_masks(state, 1))
  monkeypatch.setattr(logging.getLogger('jax'), 'propagate', True)
  with jax.log_compiles():
    assert len(find(draw(6), state, gamma=0.0).tried) == 5
    assert not compiled()
    jax.jit(lambda x: x + 1)(1)
    assert len(compiled()) == 1  # the log does record compilations


def test_a_task_starts_from_fresh_free_weights_and_unchanged_owned_ones():
  params, fresh = draw(0), draw(1)
  state = packnet.init(params, num_tasks=3, is_head=IS_HEAD)
  masks = random_masks(state, 2)
  state = packnet.claim(params, state, masks)
  started = packnet.start_task(params, state, fresh)
  for path, mask in masks.items():
    module = path.split('/')[0]
    old, new = params[module], fresh[module]
    expected = np.where(mask, old['w'], new['w'])
    assert_same_bits(started[module]['w'], jnp.asarray(expected))
    assert_same_bits(started[module]['b'], old['b'])
  assert_same_bits(started['logits'], fresh['logits'])


def test_the_first_task_starts_from_fresh_parameters():
  state = packnet.init(draw(0), num_tasks=1, per_task_biases=True)
  assert_same_bits(packnet.start_task(draw(0), state, draw(1)), draw(1))


@pytest.mark.parametrize(
  ('per_task_heads', 'per_task_biases'), [(True, False), (False, True)]
)
def test_each_task_has_its_own_heads_or_biases(per_task_heads, per_task_biases):
  first, second = jax.tree.map(lambda x: x + 1, draw(0)), draw(1)
  state = packnet.init(
    first,
    num_tasks=3,
    is_head=IS_HEAD,
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
    assert_same_bits(seen['logits'], head['logits'])
    assert_same_bits(seen['hidden']['b'], biases['hidden']['b'])
    assert not np.any(seen['hidden']['w'])


def test_copies_are_stored_again_after_retraining():
  params, retrained = draw(0), draw(1)
  state = packnet.init(params, num_tasks=2, is_head=IS_HEAD)
  state = packnet.claim(params, state, random_masks(state, 0))
  state = packnet.store_copies(retrained, state)
  seen = packnet.task_params(params, state, 1)
  assert_same_bits(seen['logits'], retrained['logits'])


def test_heads_are_never_packed():
  state = packnet.init(draw(0), num_tasks=2, is_head=IS_HEAD)
  assert set(state.owner) == set(state.masks) == {'hidden/w', 'hidden_1/w'}
  assert set(state.copies) == {'logits/w', 'logits/b'}


def exhausted():
  params = draw(0)
  state = packnet.init(params, num_tasks=3, is_head=IS_HEAD)
  full = jax.tree.map(lambda x: jnp.ones(x.shape, bool), state.owner)
  return params, packnet.claim(params, state, full)


def test_an_exhausted_network_lists_its_owners():
  params, state = exhausted()
  with pytest.raises(ValueError, match='hidden/w: 96 of 96 owned, 0 free'):
    packnet.start_task(params, state, draw(1))
  with pytest.raises(ValueError, match='task 2, got 0'):
    packnet.check_capacity(state)
  assert packnet.num_free(state) == 0


def test_a_task_may_go_on_in_an_exhausted_network():
  params, state = exhausted()
  started = packnet.start_task(params, state, draw(1), min_free=0)
  assert_same_bits(started['hidden'], params['hidden'])
  assert_same_bits(started['logits'], draw(1)['logits'])
  masks = packnet.fixed_share(started, state, 0.5)
  state = packnet.claim(started, state, masks)
  assert packnet.usage(state)['all'] == packnet.Usage(1.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'gamma': 1.1}, r'gamma in \[0, 1\], got 1.1'),
    ({'gamma': float('nan')}, 'gamma'),
    ({'densities': (0.1, 0.5)}, 'decreasing densities'),
    ({'densities': (0.5, 0.5)}, 'decreasing densities'),
    ({'densities': (1.5, 0.5)}, r'densities in \(0, 1\]'),
    ({'densities': ()}, r'densities in \(0, 1\]'),
    ({'method': 'random'}, "'linear' or 'bisection'"),
  ],
)
def test_a_bad_argument_of_a_search_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    run_search(draw(0), lambda share: share, **{'gamma': 0.9, **options})


def test_a_bad_accuracy_or_fraction_is_an_error():
  for accuracy in (float('nan'), -0.5):
    with pytest.raises(ValueError, match='accuracy, finite and not negative'):
      run_search(draw(0), lambda _, value=accuracy: value, gamma=0.9)
  state = packnet.init(draw(0), num_tasks=1)
  for density in (0.0, 1.2):
    with pytest.raises(ValueError, match='density'):
      packnet.fixed_share(draw(0), state, density)


def test_one_task_too_many_is_an_error():
  params = draw(0)
  state = packnet.init(params, num_tasks=1)
  masks = random_masks(state, 0)
  state = packnet.claim(params, state, masks)
  with pytest.raises(ValueError, match='at most 1 tasks'):
    packnet.claim(params, state, masks)
  with pytest.raises(ValueError, match='at most 1 tasks'):
    packnet.start_task(params, state, draw(1))
  for task in (0, 2):
    with pytest.raises(ValueError, match=f'got {task}'):
      packnet.task_params(params, state, task)
    with pytest.raises(ValueError, match=f'got {task}'):
      packnet.task_masks(state, task)
  with pytest.raises(ValueError, match='got 2'):
    packnet.usage(state, 2)


def test_there_is_no_retraining_before_a_claim():
  state = packnet.init(draw(0), num_tasks=1)
  with pytest.raises(ValueError, match='got 0'):
    packnet.retraining_sets(draw(0), state)


def test_masks_that_do_not_fit_are_an_error():
  params = draw(0)
  state = packnet.init(params, num_tasks=1, is_head=IS_HEAD)
  masks = random_masks(state, 0)
  for bad in (
    {'hidden/w': masks['hidden/w']},
    masks | {'hidden/w': masks['hidden/w'][:1]},
    masks | {'hidden/w': masks['hidden/w'].astype(jnp.float32)},
  ):
    with pytest.raises(ValueError, match='a boolean mask for each'):
      packnet.claim(params, state, bad)


def test_other_parameters_or_sets_than_the_network_has_are_errors():
  params = draw(0)
  state = packnet.init(params, num_tasks=1)
  other = {**params, 'logits': params['hidden']}
  with pytest.raises(ValueError, match='logits/b'):
    packnet.start_task(params, state, other)
  tx = packnet.freeze(optax.sgd(0.1))
  sets = packnet.training_sets(other, packnet.init(other, num_tasks=1))
  with pytest.raises(ValueError, match='expected sets like those'):
    packnet.with_sets(tx.init(params), sets)
  with pytest.raises(ValueError, match='one SparseState'):
    packnet.with_sets(optax.sgd(0.1).init(params), sets)


def test_no_tasks_or_an_unknown_head_is_an_error():
  with pytest.raises(ValueError, match='at least one task'):
    packnet.init(draw(0), num_tasks=0)
  with pytest.raises(ValueError, match='selects none'):
    packnet.init(draw(0), num_tasks=1, is_head=sparsity.matching('haed'))
