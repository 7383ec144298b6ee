"""An ordinary step copies no array: XLA updates all of them in place."""

import functools
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import sparsity
import topkast

SHAPE = (256, 512)
PARAMS = {
  f'{i}': {'w': jnp.zeros(SHAPE), 'b': jnp.zeros(SHAPE[1])} for i in range(2)
}
INNER = {
  'momentum': functools.partial(optax.sgd, 0.1, 0.9, nesterov=True),
  'adam': functools.partial(sparsity.adamw, 0.1),
}
MOVING = {
  'rigl': functools.partial(
    sparsity.rigl, density=0.1, refresh_every=100, stop_refresh_at=1000
  ),
  'set': functools.partial(sparsity.set_, density=0.1, refresh_every=100),
}
TOPKAST = functools.partial(
  topkast.topkast,
  forward_density=0.1,
  backward_density=0.1,
  refresh_every=100,
)


@functools.cache
def compiled(make, inner):
  """Returns the program of a step, its state donated."""
  tx = make(inner())

  def step(params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  shapes = PARAMS, jax.eval_shape(tx.init, PARAMS), PARAMS
  return jax.jit(step, donate_argnums=(0, 1)).lower(*shapes).compile()


@pytest.mark.parametrize('inner', INNER)
@pytest.mark.parametrize('name', MOVING)
def test_a_step_copies_no_array(name, inner):
  text = compiled(MOVING[name], INNER[inner]).as_text()
  entry = text[text.index('\nENTRY') :]
  size = ','.join(map(str, SHAPE))
  assert re.search(rf'f32\[{size}\]', entry)  # the form that is looked for
  copies = re.findall(rf'.*f32\[{size}\]\S* copy\(.*', entry)
  assert not copies


@pytest.mark.parametrize('inner', INNER)
def test_rigl_needs_as_little_memory_as_topkast(inner):
  found, expected = (
    compiled(make, INNER[inner]).memory_analysis().temp_size_in_bytes
    for make in (MOVING['rigl'], TOPKAST)
  )
  assert found <= expected + 4 * SHAPE[0] * SHAPE[1] / 2


def test_a_refresh_that_is_no_step_needs_values_of_what_enters():
  rule = sparsity.Rule(lambda *_: None, lambda *_: None, steps=False)
  with pytest.raises(ValueError, match='steps=False to have grow'):
    sparsity.sparsify(
      optax.sgd(0.1), rule, sparsity.make_counts(forward_density=0.5),
      is_due=sparsity.every(2),
    )  # fmt: skip
