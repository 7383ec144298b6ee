from experiments.common.checkpoint import *
