import haiku as hk
import jax.numpy as jnp
import numpy as np
import pytest

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
