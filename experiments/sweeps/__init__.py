"""Sweeps: many runs of one command, each in an ordinary folder of its own."""
