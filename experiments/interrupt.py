from experiments.common.run import Interrupt
