"""Continual learning: strategies against forgetting, and what they are worth."""
