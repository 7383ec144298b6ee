from experiments.common.run import *
import pathlib


def write_status(workdir, status, **f):
  Run(pathlib.Path(workdir)).write_status(status, **f)
