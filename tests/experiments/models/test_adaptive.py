import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import adaptive

V, D = 23, 8


def make(**changes):
  fields = {
    'size': V,
    'd_model': D,
    'cutoffs': (7, 12),
    'div_val': 1,
    'tie_projections': (False, True, True),
  }
  return adaptive.Vocabulary(**{**fields, **changes})


VOCABULARIES = {
  'full': make(cutoffs=(), tie_projections=(False,)),
  'equal': make(),
  'divided': make(div_val=2),
  'untied': make(
    div_val=2,
    tie_projections=(False, False, False),
  ),
}


def functions(vocabulary):
  """Returns random parameters, and nll, log_probs and embed of them."""

  def run(method):
    def forward(*args):
      with hk.name_scope('embedding'):
        tables = adaptive.get_tables(vocabulary)
      with hk.name_scope('softmax'):
        softmax = adaptive.Softmax(vocabulary, tables)
      return method(tables, softmax, *args)

    return hk.without_apply_rng(hk.transform(forward))

  nll = run(lambda _, softmax, x, targets: softmax.nll(x, targets))
  log_probs = run(lambda _, softmax, x: softmax.log_probs(x))
  embed = run(lambda tables, _, x: adaptive.embed(vocabulary, tables, x))
  params = jax.eval_shape(
    nll.init, jax.random.key(0), jnp.zeros((1, D)), jnp.zeros(1, jnp.int32)
  )
  generator = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: jnp.asarray(generator.normal(size=x.shape), jnp.float32), params
  )
  applies = (jax.jit(f.apply) for f in (nll, log_probs, embed))
  return params, *applies


@pytest.fixture(scope='module', params=VOCABULARIES)
def case(request):
  vocabulary = VOCABULARIES[request.param]
  return vocabulary, *functions(vocabulary)


def table_of(vocabulary, params, word):
  """Returns cluster, row of the table, and the row itself."""
  bounds = [0, *vocabulary.cutoffs, V]
  i = next(i for i in range(len(bounds) - 1) if word < bounds[i + 1])
  if vocabulary.div_val == 1:
    return i, word, params['embedding']['embeddings_0'][word]
  row = word - bounds[i]
  return i, row, params['embedding'][f'embeddings_{i}'][row]


def projection_of(vocabulary, params, i, is_output):
  if vocabulary.div_val == 1:
    return None
  if is_output and not vocabulary.tie_projections[i]:
    return np.array(params['softmax'][f'projection_{i}'])
  return np.array(params['embedding'][f'projection_{i}'])


def slow_probability(vocabulary, params, x, word):
  """p(word) of one vector, from its definition."""
  softmax = params['softmax']

  def logit(other):
    i, row, vector = table_of(vocabulary, params, other)
    j = 0 if vocabulary.div_val == 1 else i
    projection = projection_of(vocabulary, params, i, True)
    hidden = x if projection is None else projection @ x
    return hidden @ np.array(vector) + softmax[f'bias_{j}'][row]

  def share(values, position):
    values = np.exp(np.array(values, np.float64))
    return values[position] / values.sum()

  bounds = [0, *vocabulary.cutoffs, V]
  head = [logit(other) for other in range(bounds[1])]
  num_tails = len(vocabulary.cutoffs)
  for row in range(num_tails):
    projection = projection_of(vocabulary, params, 0, True)
    hidden = x if projection is None else projection @ x
    head.append(
      hidden @ np.array(softmax['cluster_embeddings'][row])
      + softmax['cluster_bias'][row]
    )
  i, _, _ = table_of(vocabulary, params, word)
  if i == 0:
    return share(head, word)
  tail = [logit(other) for other in range(bounds[i], bounds[i + 1])]
  # The first tail has the last logit of the head.
  return share(head, len(head) - i) * share(tail, word - bounds[i])


def test_every_probability_equals_its_definition(case):
  vocabulary, params, _, log_probs, _ = case
  x = np.random.default_rng(2).normal(size=(2, D)).astype(np.float32)
  found = np.exp(log_probs(params, x))
  arrays = jax.tree.map(np.array, params)
  assert found.shape == (2, V)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
  for n in range(2):
    expected = [
      slow_probability(vocabulary, arrays, x[n], word) for word in range(V)
    ]
    np.testing.assert_allclose(found[n], expected, rtol=2e-4, atol=1e-7)


def test_loss_and_gradients_equal_those_of_the_full_distribution(case):
  _, params, nll, log_probs, _ = case
  generator = np.random.default_rng(3)
  x = generator.normal(size=(40, D)).astype(np.float32)
  targets = generator.integers(0, V, 40)

  def full(params, x):
    return -jnp.mean(log_probs(params, x)[jnp.arange(40), targets])

  def fast(params, x):
    return jnp.mean(nll(params, x, targets))

  expected = jax.jit(jax.value_and_grad(full, (0, 1)))(params, x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    jax.jit(jax.value_and_grad(fast, (0, 1)))(params, x),
    expected,
  )


def test_targets_may_be_few_or_all_in_one_cluster():
  vocabulary = VOCABULARIES['divided']
  params, nll, log_probs, _ = functions(vocabulary)
  x = np.random.default_rng(4).normal(size=(33, D)).astype(np.float32)
  full = log_probs(params, x)
  rows = np.arange(33)
  for first, last in vocabulary.bounds:
    targets = rows % (last - first) + first
    found = nll(params, x, targets)
    np.testing.assert_allclose(found, -full[rows, targets], atol=2e-5)
  one = nll(params, x[:1], targets[:1])  # fewer than blocks
  np.testing.assert_allclose(one, found[:1], atol=2e-5)


def test_embeddings_are_rows_of_tables_projected_and_scaled(case):
  vocabulary, params, _, _, embed = case
  tokens = np.arange(V).reshape(1, V)
  found = embed(params, tokens)
  assert found.shape == (1, V, D)
  for word in range(V):
    i, _, vector = table_of(vocabulary, params, word)
    projection = projection_of(vocabulary, params, i, False)
    row = np.array(vector)
    row = row if projection is None else row @ projection
    np.testing.assert_allclose(found[0, word], row * D**0.5, atol=1e-5)
