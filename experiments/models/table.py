"""Networks by name; each takes its section and `num_classes`."""

from experiments.models import alexnet
from experiments.models import lenet
from experiments.models import resnet

MODELS = {
  'alexnet': alexnet.alexnet,
  'lenet': lenet.lenet,
  'lenet5': lenet.lenet5,
  'resnet18': resnet.resnet18,
  'resnet32': resnet.resnet32,
  'resnet50': resnet.resnet50,
  'wide_resnet': resnet.wide_resnet,
}
