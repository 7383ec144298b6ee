from experiments.common.metrics import *
