"""Choice of the implementation, the build, and errors."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import build
from sparsity.kernels import native


@pytest.fixture
def fresh(monkeypatch):
  """Unloads the library before and after."""
  monkeypatch.delenv('SPARSITY_KERNELS', raising=False)
  native._load.cache_clear()
  yield
  native._load.cache_clear()


def test_argument_beats_context_beats_variable_beats_platform(monkeypatch):
  monkeypatch.setenv('SPARSITY_KERNELS', 'xla')
  assert kernels.implementation() == 'xla'
  assert 'as requested' in kernels.describe()
  monkeypatch.delenv('SPARSITY_KERNELS')
  if native.problem():
    assert kernels.implementation() == 'xla'
    return
  assert kernels.implementation() == 'native'
  with kernels.use('xla'):
    assert kernels.implementation() == 'xla'
    assert kernels.implementation('native') == 'native'


def test_an_unknown_name_is_an_error(monkeypatch):
  monkeypatch.setenv('SPARSITY_KERNELS', 'cuda')
  with pytest.raises(ValueError, match='expected one of xla, native, got'):
    kernels.implementation()


def test_without_a_library_xla_is_used_and_describe_says_why(
  fresh, monkeypatch, tmp_path
):
  monkeypatch.setattr(build, 'LIBRARY', tmp_path / 'none.so')
  assert kernels.implementation() == 'xla'
  assert 'not built: run `python -m' in kernels.describe()
  with pytest.raises(RuntimeError, match='not built: run `python -m'):
    kernels.implementation('native')
  native._load.cache_clear()
  (tmp_path / 'none.so').write_text('no library')
  assert 'none.so cannot be loaded' in native.problem()


def test_a_stale_library_is_not_used(fresh, monkeypatch):
  if not build.LIBRARY.exists():
    pytest.skip('not built')
  monkeypatch.setattr(build, 'fingerprint', lambda: 'new')
  with pytest.warns(UserWarning, match='is older than its sources'):
    assert kernels.implementation() == 'xla'


@pytest.mark.parametrize(
  ('compiler', 'message'),
  [('/no/such/compiler', r'no C\+\+ compiler'), ('false', 'false -std')],
)
def test_a_missing_or_failing_compiler_is_an_error(
  compiler, message, monkeypatch, tmp_path
):
  monkeypatch.setenv('CXX', compiler)
  with pytest.raises(build.BuildError, match=message):
    build.compile_library(tmp_path / 'native.so')
  assert not list(tmp_path.iterdir())


def test_the_instruction_set_can_be_chosen(monkeypatch):
  if native.problem():
    pytest.skip(native.problem())
  monkeypatch.setenv('SPARSITY_ISA', 'portable')
  assert kernels.describe() == 'native kernels: portable'
  monkeypatch.setenv('SPARSITY_ISA', 'sse9')
  with pytest.raises(ValueError, match='expected SPARSITY_ISA to be one of'):
    native.isa()


def ones(*shape, dtype=jnp.float32):
  return jnp.ones(shape, dtype)


IMAGE, VALUES = ones(1, 2, 2, 3), ones(3)
WRONG = [
  ('conv', (IMAGE, VALUES), {'shape': (1, 1, 3, 4)}, 'cells int32'),
  ('conv', (IMAGE, ones(4)), {}, 'values of shape'),
  ('conv', (ones(1, 2, 2, 6), VALUES), {}, 'masked weights for feature'),
  ('conv', (ones(1, 2, 2, 3, dtype='float16'), VALUES), {}, 'x in float32 or'),
  ('conv', (IMAGE, ones(3, dtype='int32')), {}, 'values in float32 or'),
  ('conv_dx', (IMAGE, VALUES), {'image_size': (4, 4)}, r'dy \[batch, 4, 4'),
  ('conv_dw', (IMAGE, ones(1, 2, 3, 3)), {}, r'expected dy \[batch, 2, 2'),
  ('conv_dw', (IMAGE, ones(2, 2, 2, 3)), {}, 'expected one batch'),
]


@pytest.mark.parametrize(('product', 'arrays', 'options', 'message'), WRONG)
def test_mismatched_shapes_and_dtypes_are_errors(
  product, arrays, options, message
):
  structure = kernels.from_masks(*np.array([np.eye(3, dtype=bool)] * 2))
  options = {'shape': (1, 1, 3, 3), 'window': kernels.PIXEL, **options}
  with pytest.raises((TypeError, ValueError), match=message):
    getattr(kernels, product)(*arrays, structure, **options)


def test_malformed_windows_are_errors():
  for window, message in (
    ((0, 'SAME'), 'one or two positive strides'),
    ((1, 'FULL'), "padding 'SAME', 'VALID'"),
    ((1, ((0, 0),)), 'expected padding'),
  ):
    with pytest.raises(ValueError, match=message):
      kernels.make_window((2, 2), (1, 1), *window)
