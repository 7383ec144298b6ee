"""What tests of the kernels share."""

import pytest

from sparsity.kernels import native


@pytest.fixture(
  params=('reference', 'xla', *(f'native-{isa}' for isa in native.ISAS))
)
def implementation(request, monkeypatch):
  """One implementation, the native one with each instruction set."""
  name, _, isa = request.param.partition('-')
  if isa:
    if isa not in native.supported():
      pytest.skip(native.problem() or f'this processor has no {isa}')
    monkeypatch.setenv('SPARSITY_ISA', isa)
  return name
