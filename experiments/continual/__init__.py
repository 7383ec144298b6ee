"""Continual learning: strategies against forgetting, and measures of it."""
