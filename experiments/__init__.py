"""Experiments: data, networks and methods wired into runs."""
