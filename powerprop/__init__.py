"""Powerpropagation: a weight parameterization that trains into sparsity."""

from powerprop import packnet
from powerprop.modules import Conv1D
from powerprop.modules import Conv1DTranspose
from powerprop.modules import Conv2D
from powerprop.modules import Conv2DTranspose
from powerprop.modules import Conv3D
from powerprop.modules import Conv3DTranspose
from powerprop.modules import Linear
from powerprop.modules import parameterize
from powerprop.reparam import from_weights
from powerprop.reparam import to_weights
from powerprop.transform import powerprop
from powerprop.transform import scale_by_powerprop

__all__ = [
  'Conv1D',
  'Conv1DTranspose',
  'Conv2D',
  'Conv2DTranspose',
  'Conv3D',
  'Conv3DTranspose',
  'Linear',
  'from_weights',
  'packnet',
  'parameterize',
  'powerprop',
  'scale_by_powerprop',
  'to_weights',
]
