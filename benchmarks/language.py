"""Tokens per second of Transformer-XL in training, dense and Top-KAST.

  python -m benchmarks.language [--quick] [--record=DIR]

A model of 5 million parameters (6 layers of width 256), bytes, segments of 64
with a memory of 64, batches of 8, Adam; masked storage, sets refreshed every 20
steps.
"""

from benchmarks import record
from benchmarks import storage

CONFIG = 'configs/text_transformer_xl.py'
MODEL = {
  'num_layers': 6,
  'd_model': 256,
  'num_heads': 8,
  'd_inner': 1024,
  'dropout': 0.1,
}
TOKENS = 8 * 64  # in a batch


def main() -> None:
  given, figures = record.start('language', __doc__)
  num_steps, rounds = (5, 5) if given.quick else (20, 11)
  overrides = [f'--config.model.{key}={x}' for key, x in MODEL.items()]
  sparse = f'--config.method.refresh_every={num_steps}'
  variant = 'topkast,density=0.1,backward_density=0.2'
  functions = {
    'dense': storage.make_steps(f'{CONFIG}:dense', overrides, num_steps),
    'Top-KAST': storage.make_steps(
      f'{CONFIG}:{variant}', [*overrides, sparse], num_steps
    ),
  }
  figures.compare(
    functions, rounds, 'dense', per=num_steps * TOKENS, speed='tokens/s'
  )
  figures.write(given.record)


if __name__ == '__main__':
  main()
