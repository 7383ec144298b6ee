"""Sweeps: a plan of runs, each of one network in a folder of its own."""
