"""Continual learning: many tasks one after another in one network."""
