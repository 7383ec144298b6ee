"""Haiku networks, one file for each."""
