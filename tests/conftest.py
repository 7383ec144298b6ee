"""Strictness for every test: what is careless raises."""

import os
import pathlib

REPOSITORY = pathlib.Path(__file__).parent.parent

# Before JAX starts: several CPU devices, so that sharded code is really run.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
)
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(REPOSITORY / '.cache/jax')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import jax  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
