"""Kernels under test: each implementation, on each instruction set."""

import pytest

from sparsity.kernels import native

IMPLEMENTATIONS = (
  'reference',
  'xla',
  *(f'native-{isa}' for isa in native.ISAS),
)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, monkeypatch):
  """Name of an implementation; its instruction set is in the environment."""
  name, _, isa = request.param.partition('-')
  if isa:
    if isa not in native.supported():
      pytest.skip(native.problem() or f'this processor has no {isa}')
    monkeypatch.setenv('SPARSITY_ISA', isa)
  return name
