"""Powerpropagation: a weight parameterization that trains into sparsity."""

from powerprop import packnet as packnet
from powerprop.modules import Conv2D as Conv2D
from powerprop.modules import Linear as Linear
from powerprop.modules import parameterize as parameterize
from powerprop.reparam import from_weights as from_weights
from powerprop.reparam import to_weights as to_weights
from powerprop.transform import powerprop as powerprop
from powerprop.transform import scale_by_powerprop as scale_by_powerprop
