from experiments.common.processes import *
