"""Powerpropagation: a weight parameterization that trains into sparsity."""

from powerprop import packnet as packnet
from powerprop.ham import ham as ham
from powerprop.modules import Conv1D as Conv1D
from powerprop.modules import Conv1DTranspose as Conv1DTranspose
from powerprop.modules import Conv2D as Conv2D
from powerprop.modules import Conv2DTranspose as Conv2DTranspose
from powerprop.modules import Conv3D as Conv3D
from powerprop.modules import Conv3DTranspose as Conv3DTranspose
from powerprop.modules import Linear as Linear
from powerprop.modules import parameterize as parameterize
from powerprop.reparam import from_weights as from_weights
from powerprop.reparam import to_weights as to_weights
from powerprop.transform import powerprop as powerprop
from powerprop.transform import scale_by_powerprop as scale_by_powerprop
