"""Data sets by name; each takes its section and returns a `dataset.Source`."""

from experiments.data import cifar
from experiments.data import imagenet
from experiments.data import mnist

SOURCES = {
  'cifar10': cifar.cifar10,
  'cifar100': cifar.cifar100,
  'fashion_mnist': mnist.fashion_mnist,
  'imagenet': imagenet.imagenet,
  'mnist': mnist.mnist,
}
