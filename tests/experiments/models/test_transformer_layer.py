import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import layers
from experiments.models import transformer_layer as layer_lib

B, T, M, D, H, C = 2, 3, 4, 6, 2, 5
K = M + T


@pytest.mark.parametrize('clamp_len', [None, 3, 100])
def test_distances_are_embedded_one_by_one(clamp_len):
  embedded = layer_lib.embed_distances(9, D, clamp_len)
  for j in range(9):
    distance = min(8 - j, clamp_len or 8)
    for i in range(D // 2):
      angle = distance / 10_000 ** (2 * i / D)
      np.testing.assert_allclose(embedded[j, i], np.sin(angle), atol=1e-6)
      np.testing.assert_allclose(
        embedded[j, D // 2 + i], np.cos(angle), atol=1e-6
      )


def arrays(seed=0):
  generator = np.random.default_rng(seed)

  def draw(*shape):
    return generator.normal(size=shape).astype(np.float32)

  weights = {
    name: draw(*((H * C, D) if name == 'output' else (D, H * C)))
    for name in ('query', 'key', 'value', 'position', 'output')
  }
  biases = draw(H, C), draw(H, C)
  return draw(B, K, D), draw(K, D), biases, weights


def slow(queries, keys, positions, biases, weights, mask):
  """Returns the paper's formula, one query and one key at a time."""
  out = np.zeros((B, T, H, C))
  q, k, v = (
    np.reshape(x @ weights[name], (B, -1, H, C))
    for x, name in ((queries, 'query'), (keys, 'key'), (keys, 'value'))
  )
  r = np.reshape(positions @ weights['position'], (K, H, C))
  for b in range(B):
    for t in range(T):
      for h in range(H):
        scores = np.full(K, -np.inf)
        for j in range(K):
          if mask[b, 0, t, j]:
            distance = M + t - j
            scores[j] = (
              (q[b, t, h] + biases[0][h]) @ k[b, j, h]
              + (q[b, t, h] + biases[1][h]) @ r[K - 1 - distance, h]
            ) / np.sqrt(C)
        shares = np.exp(scores - scores.max())
        out[b, t, h] = (shares / shares.sum()) @ v[b, :, h]
  return np.reshape(out, (B, T, H * C)) @ weights['output']


@pytest.mark.parametrize('same_length', [False, True])
def test_attention_equals_the_formula_of_the_paper(same_length):
  keys, positions, biases, weights = arrays()
  mask = layer_lib.visible(jnp.array([1, M]), T, M, same_length)
  params = {name: {'w': w} for name, w in weights.items()}
  params['layer_norm'] = {'scale': jnp.ones(D), 'offset': jnp.ones(D)}
  settings = layer_lib.Settings(H, C, 1, 0.5, 0.5)

  @hk.transform
  def attend(*arguments):
    return layer_lib.attend(settings, *arguments, False)

  x = keys[:, M:]
  found = attend.apply(params, None, x, keys[:, :M], positions, biases, mask)
  y = x + slow(x, keys, positions, biases, weights, np.array(mask))
  y -= y.mean(-1, keepdims=True)
  expected = 1 + y / np.sqrt(np.square(y).mean(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_backward_pass_keeps_probabilities_in_the_compute_dtype():
  keys, positions, biases, weights = arrays()
  params = {name: {'w': w} for name, w in weights.items()}
  params['layer_norm'] = {'scale': jnp.ones(D), 'offset': jnp.ones(D)}
  mask = layer_lib.visible(jnp.full(B, M), T, M, False)
  settings = layer_lib.Settings(H, C, 1, 0.0, 0.0)

  @hk.transform
  def attend(x, memory, positions):
    with layers.precision(x.dtype):
      return layer_lib.attend(
        settings, x, memory, positions, biases, mask, True
      )

  def run(dtype):
    x, memory, by_distance = (
      jnp.asarray(a, dtype) for a in (keys[:, M:], keys[:, :M], positions)
    )
    y, backward = jax.vjp(
      lambda p, x: attend.apply(p, None, x, memory, by_distance), params, x
    )
    kept = [x for x in jax.tree.leaves(backward) if x.shape == (B, H, T, K)]
    kept = [x for x in kept if jnp.any(x)]  # XLA keeps no constant zeros
    return kept, *(jnp.float32(x) for x in (y, backward(y)[1]))

  kept, *found = run('bfloat16')
  kinds = {str(x.dtype) for x in kept} - {'bool'}  # of the mask
  assert kinds == {'bfloat16'}
  for x, expected in zip(found, run('float32')[1:], strict=True):
    np.testing.assert_allclose(x, expected, atol=0.3)


def test_the_gradient_of_softmax_is_that_of_jax():
  scores, g = np.random.default_rng(0).normal(size=(2, 3, 7))
  _, backward = jax.vjp(lambda x: layer_lib.softmax(x, 'float32'), scores)
  _, expected = jax.vjp(jax.nn.softmax, scores)
  np.testing.assert_allclose(backward(g)[0], expected(g)[0], atol=1e-7)
