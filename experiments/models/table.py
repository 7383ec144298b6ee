"""Networks by name: each takes its section, and `num_classes`."""

from experiments.models import lenet

MODELS = {'lenet': lenet.lenet}
