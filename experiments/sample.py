"""Text from a trained language model.

  python -m experiments.sample --workdir=DIR --prompt=TEXT [--length=N] \
      [--temperature=X] [--seed=N] [--step=N]

Continues the prompt token by token (bytes or words), with the evaluation's
memory length. No data are needed.
"""

import argparse
from collections.abc import Sequence
import functools
import pathlib
import sys
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from experiments import export
from experiments import rundir
from experiments.data import vocabulary as vocabulary_lib
from experiments.models import transformer_xl
from experiments.tasks import language
from experiments.tasks import table

USER_ERROR = 2  # exit code


def sample(
  model: transformer_xl.TransformerXL,
  weights: Any,
  prompt: np.ndarray,
  *,
  length: int,
  memory_len: int,
  segment_len: int,
  temperature: float,
  seed: int,
) -> np.ndarray:
  """Returns the tokens that follow a prompt, int32 [length].

  The prompt, int [P] with at least one token, is read in pieces of
  `segment_len`. The temperature divides the log-probabilities; 0 takes the
  likeliest token always.
  """
  for expected, value, is_right in (
    ('length >= 1', length, length >= 1),
    ('temperature >= 0', temperature, 0 <= temperature < np.inf),
    ('seed from 0 to 2^32 - 1', seed, 0 <= seed < 2**32),
  ):
    if not is_right:
      raise ValueError(f'expected {expected}, got {value}')
  predict = jax.jit(model.predict)
  memory = model.memory(1, memory_len)
  prompt = np.asarray(prompt, np.int32)
  for start in range(0, len(prompt), segment_len):
    piece = prompt[None, start : start + segment_len]
    log_probs, memory = predict(weights, memory, piece)

  def body(carry, key):
    weights, memory, log_probs = carry
    scaled = log_probs[0] / (temperature or 1.0)
    token = jnp.argmax(scaled).astype(jnp.int32)
    if temperature:
      token = jax.random.categorical(key, scaled).astype(jnp.int32)
    log_probs, memory = model.predict(weights, memory, token[None, None])
    return (weights, memory, log_probs), token

  keys = jax.random.split(jax.random.key(seed), length)
  continue_text = jax.jit(functools.partial(jax.lax.scan, body))
  return np.asarray(continue_text((weights, memory, log_probs), keys)[1])


def encode(vocabulary: vocabulary_lib.Vocabulary, prompt: str) -> np.ndarray:
  """Returns the tokens of a prompt, without `<eos>` on an unfinished line."""
  tokens = vocabulary_lib.encode(vocabulary, prompt)
  if vocabulary.unit == 'word' and not prompt.endswith('\n'):
    tokens = tokens[:-1]
  if not len(tokens):
    raise ValueError(
      f'expected a prompt of at least one token, got {prompt!r}; a new line '
      'is one'
    )
  return tokens


def main(arguments: Sequence[str]) -> int:
  """Prints the prompt and what follows, and returns the exit code."""
  logging.set_verbosity(logging.ERROR)
  parser = argparse.ArgumentParser(
    'python -m experiments.sample',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--workdir', type=rundir.user_path, required=True, help='folder of the run'
  )
  parser.add_argument('--prompt', default='\n', help='first part of the text')
  parser.add_argument('--length', type=int, default=500, help='tokens')
  parser.add_argument('--temperature', type=float, default=0.8)
  parser.add_argument('--seed', type=int, default=0, help='of the draws')
  parser.add_argument('--step', type=int, help='global step of a checkpoint')
  given = parser.parse_args(arguments)
  try:
    network = export.extract(given.workdir, step=given.step)
    found = table.make_task(network.config).language
    if found is None:
      raise ValueError(
        f'expected a run of language_modelling in {given.workdir}, got one of '
        f'{network.config["experiment"]}'
      )
    model, shape = found
    path = pathlib.Path(given.workdir) / language.VOCABULARY
    vocabulary = vocabulary_lib.read(path)
    prompt = encode(vocabulary, given.prompt)
    tokens = sample(
      model,
      network.weights,
      prompt,
      length=given.length,
      memory_len=shape.memory_len,
      segment_len=shape.segment_len,
      temperature=given.temperature,
      seed=given.seed,
    )
  except (ValueError, OSError) as error:
    print(f'experiments.sample: {error}', file=sys.stderr)
    return USER_ERROR
  print(vocabulary_lib.decode(vocabulary, [*prompt, *tokens]))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
