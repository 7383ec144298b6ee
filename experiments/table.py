"""Experiments by the name that a config gives.

Each is a module with functions of the sections of a config: `build`, what
`launch.py` runs; `outlines`, what is known without data; and `trained`, the
networks that a run leaves.
"""

from experiments import continual_learning
from experiments import image_classification
from experiments import language_modelling

EXPERIMENTS = {
  'continual_learning': continual_learning,
  'image_classification': image_classification,
  'language_modelling': language_modelling,
}
