"""Continual learning."""
