import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
from powerprop import packnet
import sparsity
from tests.powerprop import packing

NUM_TASKS = 4
DENSITIES = (0.8, 0.4, 0.2, 0.1)

OPTIMIZERS = {
  'momentum and decay': lambda: optax.chain(
    optax.add_decayed_weights(1e-2), optax.sgd(0.05, momentum=0.9)
  ),
  'adamw': lambda: optax.adamw(0.01, weight_decay=0.1),
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


class Learner:
  """Learns tasks one after another with programs compiled once."""

  def __init__(self, optimizer, *, alpha=1.0, keep_state=False, **kinds):
    self.tx = packnet.freeze(powerprop.powerprop(optimizer, alpha))
    self.alpha, self.keep_state = alpha, keep_state
    self.params = self.draw(0)
    self.state = packing.init(self.params, NUM_TASKS, **kinds)
    self.opt_state = self.tx.init(self.params)
    self.predict = jax.jit(self._predict)
    self.train = jax.jit(self._train)
    self.evaluate = jax.jit(self._evaluate)

  def draw(self, seed):
    return powerprop.from_weights(packing.draw(seed), self.alpha)

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
    remembered[task] = packing.bits(learner.logits(task))
    labels = draw_task(task)[1]
    accuracies.append(np.mean(learner.logits(task).argmax(1) == labels))
    for earlier, logits in remembered.items():
      np.testing.assert_array_equal(
        packing.bits(learner.logits(earlier)), logits
      )
  assert learner.predict._cache_size() == 1
  assert learner.train._cache_size() == 1
  assert learner.evaluate._cache_size() == (method == 'efficient')
  assert accuracies[0] > 0.6  # with the whole network


def test_momentum_and_decay_move_exactly_the_free_weights():
  tx = packnet.freeze(OPTIMIZERS['momentum and decay']())
  tx = optax.MultiSteps(tx, 2).gradient_transformation()
  params = packing.draw(0)
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
    old, new = (packing.bits(x[module][leaf]) for x in (frozen, params))
    np.testing.assert_array_equal(old == new, mask)
    packing.assert_same_bits(frozen[module]['b'], params[module]['b'])
