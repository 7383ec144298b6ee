"""Inference with pruned networks, from active entries only."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsity


def test_inference_equals_that_of_the_masked_weights():
  net = hk.without_apply_rng(
    hk.transform(
      lambda x: sparsity.modules.Linear(8)(
        jax.nn.relu(sparsity.modules.Conv2D(6, 3)(x)).mean((1, 2))
      )
    )
  )
  x = jax.random.normal(jax.random.key(2), (3, 5, 5, 4))
  params = net.init(jax.random.key(0), x)
  masks = jax.tree.map(lambda x: np.ones(x.shape, bool), params)
  masks['conv2_d']['w'] = np.asarray(
    sparsity.topk_mask(params['conv2_d']['w'], 30, magnitude=True)
  )
  pruned = jax.tree.map(jnp.multiply, params, masks)
  expected = net.apply(pruned, x)
  is_compact = sparsity.compact.is_compact
  for predict in (
    sparsity.compile_inference(net.apply, params, masks),
    # Without masks, from the zeros of the weights.
    sparsity.compile_inference(net.apply, pruned, implementation='xla'),
  ):
    np.testing.assert_allclose(predict(x), expected, rtol=1e-5, atol=1e-5)
    assert predict.weights['conv2_d']['w'].entries.num_forward == 30
    assert not is_compact(predict.weights['linear']['w'])
  np.testing.assert_allclose(predict(x[:1]), expected[:1], rtol=1e-5, atol=1e-5)
  del masks['linear']
  with pytest.raises(ValueError, match='expected masks like the weights'):
    sparsity.compile_inference(net.apply, params, masks)
