"""Experiments as tasks: image classification, language, continual learning."""
