"""Choice of the implementation, the build, and errors."""

import ctypes

import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import build
from sparsity.kernels import native

EYE = np.eye(3, dtype=bool)


@pytest.fixture
def structure():
  return kernels.from_masks(EYE, EYE)


@pytest.fixture
def fresh():
  """Unloads the library before and after."""
  native._load.cache_clear()
  yield
  native._load.cache_clear()


def test_argument_beats_context_beats_variable(monkeypatch):
  monkeypatch.setenv('SPARSITY_KERNELS', 'xla')
  assert kernels.implementation() == 'xla'
  with kernels.use('reference'):
    assert kernels.implementation() == 'reference'
    assert kernels.implementation('xla') == 'xla'
  assert kernels.implementation() == 'xla'


def test_native_is_the_default_where_it_is_built(monkeypatch):
  monkeypatch.delenv('SPARSITY_KERNELS', raising=False)
  built = not native.problem()
  assert kernels.implementation() == ('native' if built else 'xla')


def test_an_unknown_name_is_an_error(monkeypatch):
  message = 'expected one of reference, xla, native, got'
  with pytest.raises(ValueError, match=message):
    kernels.implementation('cuda')
  with pytest.raises(ValueError, match=message), kernels.use('cuda'):
    pass
  monkeypatch.setenv('SPARSITY_KERNELS', 'cuda')
  with pytest.raises(ValueError, match=message):
    kernels.implementation()


def test_without_a_library_xla_is_used_and_describe_says_why(
  fresh, monkeypatch, tmp_path
):
  monkeypatch.delenv('SPARSITY_KERNELS', raising=False)
  monkeypatch.setattr(build, 'LIBRARY', tmp_path / 'none.so')
  assert kernels.implementation() == 'xla'
  assert 'not built: run `python -m' in kernels.describe()
  with pytest.raises(RuntimeError, match='not built: run `python -m'):
    kernels.implementation('native')


def test_a_file_that_is_no_library_is_not_used(fresh, monkeypatch, tmp_path):
  broken = tmp_path / 'broken.so'
  broken.write_text('no library')
  monkeypatch.setattr(build, 'LIBRARY', broken)
  assert 'broken.so cannot be loaded' in native.problem()


def test_a_stale_library_is_not_used(fresh, monkeypatch):
  if not build.LIBRARY.exists():
    pytest.skip('not built')
  monkeypatch.delenv('SPARSITY_KERNELS', raising=False)
  monkeypatch.setattr(build, 'fingerprint', lambda: 'new')
  with pytest.warns(UserWarning, match='is older than its sources'):
    assert kernels.implementation() == 'xla'


@pytest.mark.nightly
def test_the_sources_compile(tmp_path):
  try:
    build.find_compiler()
  except build.BuildError as error:
    pytest.skip(str(error))
  path = build.compile_library(tmp_path / 'native.so')
  library = ctypes.CDLL(str(path))
  library.sparsity_sources.restype = ctypes.c_char_p
  assert library.sparsity_sources().decode() == build.fingerprint()
  assert library.sparsity_supports(0)


def test_a_missing_compiler_is_an_error(monkeypatch):
  monkeypatch.setenv('CXX', '/no/such/compiler')
  with pytest.raises(build.BuildError, match=r'no C\+\+ compiler'):
    build.compile_library()


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path):
  monkeypatch.setenv('CXX', 'false')
  with pytest.raises(build.BuildError, match='false -std'):
    build.compile_library(tmp_path / 'native.so')
  assert not list(tmp_path.iterdir())


def test_the_instruction_set_can_be_chosen(monkeypatch):
  if native.problem():
    pytest.skip(native.problem())
  monkeypatch.setenv('SPARSITY_ISA', 'portable')
  assert native.isa() == 'portable'
  assert kernels.describe().startswith('native kernels: portable, ')
  monkeypatch.setenv('SPARSITY_ISA', 'sse9')
  with pytest.raises(ValueError, match='expected SPARSITY_ISA to be one of'):
    native.isa()
  monkeypatch.delenv('SPARSITY_ISA')
  assert native.isa() == native.supported()[-1]
  assert native.num_threads() >= 1


def test_mismatched_shapes_are_errors(structure):
  values, x = jnp.ones(3), jnp.ones((2, 3))
  with pytest.raises(ValueError, match='expected cells int32'):
    kernels.matmul(x, values, structure, (3, 4))
  with pytest.raises(ValueError, match='expected t_cells int32'):
    kernels.matmul(jnp.ones((2, 4)), values, structure, (4, 3))
  with pytest.raises(ValueError, match='expected values of shape'):
    kernels.matmul(x, jnp.ones(4), structure, (3, 3))
  with pytest.raises(ValueError, match=r'expected x \[\.\.\., 3\]'):
    kernels.matmul(jnp.ones((2, 4)), values, structure, (3, 3))
  with pytest.raises(ValueError, match=r'expected dy \[\.\.\., 3\]'):
    kernels.matmul_dx(jnp.ones((2, 4)), values, structure, (3, 3))
  with pytest.raises(ValueError, match='expected x and dy of the same lead'):
    kernels.matmul_dw(x, jnp.ones((3, 3)), structure, (3, 3))
  with pytest.raises(ValueError, match=r'expected the shape \(in, out\)'):
    kernels.matmul(x, values, structure, (1, 1, 3, 3))


def test_unsupported_dtypes_are_errors(structure):
  halves, whole = jnp.ones((2, 3), jnp.float16), jnp.ones(3, jnp.int32)
  with pytest.raises(TypeError, match='expected x in float32 or bfloat16'):
    kernels.matmul(halves, jnp.ones(3), structure, (3, 3))
  with pytest.raises(TypeError, match='expected values in float32 or bfloat16'):
    kernels.matmul(jnp.ones((2, 3)), whole, structure, (3, 3))


def test_unsupported_convolutions_are_errors(structure):
  values, x, shape = jnp.ones(3), jnp.ones((1, 2, 2, 3)), (1, 1, 3, 3)
  good = {'stride': 1, 'padding': 'SAME'}
  with pytest.raises(ValueError, match='masked weights for feature groups'):
    kernels.conv(jnp.ones((1, 2, 2, 6)), values, structure, shape, **good)
  with pytest.raises(ValueError, match='expected the shape'):
    kernels.conv(x, values, structure, (3, 3), **good)
  with pytest.raises(ValueError, match='expected one or two positive strides'):
    kernels.conv(x, values, structure, shape, stride=0, padding='SAME')
  with pytest.raises(ValueError, match="expected padding 'SAME', 'VALID'"):
    kernels.conv(x, values, structure, shape, stride=1, padding='FULL')
  with pytest.raises(ValueError, match='expected padding'):
    kernels.conv(x, values, structure, shape, stride=1, padding=((0, 0),))
  with pytest.raises(ValueError, match='expected dy of height and width'):
    kernels.conv_dx(x, values, structure, shape, image_size=(4, 4), **good)
  with pytest.raises(ValueError, match='expected dy of height and width'):
    kernels.conv_dw(x, jnp.ones((1, 2, 3, 3)), structure, shape, **good)
  with pytest.raises(ValueError, match='expected one batch'):
    kernels.conv_dw(x, jnp.ones((2, 2, 2, 3)), structure, shape, **good)
