import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import mesh as mesh_lib
from experiments.models import adaptive
from tests import oracles

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


def functions(vocabulary, mesh=None):
  """Returns random parameters, and nll, log_probs and embed of them."""

  def run(method):
    def forward(*args):
      with hk.name_scope('embedding'):
        tables = adaptive.get_tables(vocabulary)
      with hk.name_scope('softmax'):
        softmax = adaptive.Softmax(vocabulary, tables, mesh)
      return method(tables, softmax, *args)

    return hk.without_apply_rng(hk.transform(forward))

  nll = run(lambda _, softmax, x, targets: softmax.nll(x, targets))
  log_probs = run(lambda _, softmax, x: softmax.log_probs(x))
  embed = run(lambda tables, _, x: adaptive.embed(vocabulary, tables, x))
  shapes = jax.eval_shape(
    nll.init, jax.random.key(0), jnp.zeros((4, D)), jnp.zeros(4, jnp.int32)
  )
  applies = (jax.jit(f.apply) for f in (nll, log_probs, embed))
  return oracles.normal(shapes, 1), *applies


@pytest.fixture(scope='module', params=VOCABULARIES)
def case(request):
  vocabulary = VOCABULARIES[request.param]
  return vocabulary, *functions(vocabulary)


def cluster(vocabulary, params, i):
  """Returns table and bias, and the projections of embedding and softmax."""
  first, last = [0, *vocabulary.cutoffs, V][i : i + 2]
  embedding, softmax = (params[name] for name in ('embedding', 'softmax'))
  if vocabulary.div_val == 1:
    table, bias = embedding['embeddings_0'], softmax['bias_0']
    return table[first:last], bias[first:last], np.eye(D), np.eye(D)
  own = softmax if not vocabulary.tie_projections[i] else embedding
  names = f'embeddings_{i}', f'bias_{i}', f'projection_{i}'
  parts = embedding[names[0]], softmax[names[1]], embedding[names[2]]
  return *parts, own[names[2]]


def slow_probabilities(vocabulary, params, x):
  """Returns p of every word after the vectors x, from its definition."""
  parts = []
  for i in range(len(vocabulary.cutoffs) + 1):
    table, bias, _, projection = cluster(vocabulary, params, i)
    logits = x @ projection.T @ table.T + bias
    if not i and vocabulary.cutoffs:
      softmax = params['softmax']
      of_tails = x @ projection.T @ softmax['cluster_embeddings'].T
      logits = np.hstack([logits, of_tails + softmax['cluster_bias']])
    shares = np.exp(np.float64(logits))
    shares /= shares.sum(1, keepdims=True)
    # The first tail has the last logit of the head.
    parts.append(parts[0][:, -i][:, None] * shares if i else shares)
  parts[0] = parts[0][:, : vocabulary.bounds[0][1]]
  return np.hstack(parts)


def test_every_probability_equals_its_definition(case):
  vocabulary, params, _, log_probs, _ = case
  x = np.random.default_rng(2).normal(size=(2, D)).astype(np.float32)
  found = np.exp(log_probs(params, x))
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
  arrays = jax.tree.map(np.array, params)
  expected = slow_probabilities(vocabulary, arrays, x)
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-7)


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
  found = jax.jit(jax.value_and_grad(fast, (0, 1)))(params, x)
  oracles.assert_close(found, expected, atol=1e-5)


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


def test_devices_divide_the_tails_and_agree_with_one():
  vocabulary, mesh = VOCABULARIES['divided'], mesh_lib.make_mesh(4)
  generator, over_data = np.random.default_rng(5), mesh_lib.over_data(mesh)
  x = generator.normal(size=(128, D)).astype(np.float32)
  # All tokens of one device are in a tail, none of another.
  targets = np.sort(generator.integers(0, V, 128))
  x, targets = jax.device_put((x, targets), over_data)

  def gradient(mesh):
    params, nll, _, _ = functions(vocabulary, mesh)
    params = jax.device_put(params, mesh_lib.replicated(mesh_lib.make_mesh(4)))
    compute = jax.jit(
      jax.value_and_grad(
        lambda params, x: jnp.mean(nll(params, x, targets)), (0, 1)
      )
    )
    compiled = compute.lower(params, x).compile()
    return compiled.as_text(), compiled(params, x)

  _, expected = gradient(None)
  text, found = gradient(mesh)
  oracles.assert_close(found, expected, atol=1e-6)
  assert 'all-gather' not in text
  sorts = [line for line in text.splitlines() if ' sort(' in line]
  assert sorts
  assert all('= (pred[32]' in line for line in sorts)


def test_embeddings_are_rows_of_tables_projected_and_scaled(case):
  vocabulary, params, _, _, embed = case
  rows = []
  for i in range(len(vocabulary.cutoffs) + 1):
    table, _, projection, _ = cluster(vocabulary, params, i)
    rows.append(table @ projection)
  found = embed(params, np.arange(V).reshape(1, V))
  np.testing.assert_allclose(found[0], np.vstack(rows) * D**0.5, atol=1e-5)
