"""Tasks: image classification, language modelling, continual learning."""
