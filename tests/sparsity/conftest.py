"""Kernels under test: each implementation, on each instruction set."""

import pytest

from sparsity import kernels
from sparsity.kernels import native

IMPLEMENTATIONS = ('xla', *(f'native-{isa}' for isa in native.ISAS))


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, monkeypatch):
  """Name of the implementation in use; the instruction set is in use, too."""
  name, _, isa = request.param.partition('-')
  if isa:
    if isa not in native.supported():
      pytest.skip(native.problem() or f'this processor has no {isa}')
    monkeypatch.setenv('SPARSITY_ISA', isa)
  with kernels.use(name):
    yield name
