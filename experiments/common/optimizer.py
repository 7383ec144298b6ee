"""Optimizers by name: a config section is the arguments of one of these."""

import optax


def sgd(
  *, learning_rate: float, momentum: float, nesterov: bool, weight_decay: float
) -> optax.GradientTransformation:
  """Returns SGD; the decay is added to the gradient, as an L2 penalty is."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay)
    if weight_decay
    else optax.identity(),
    optax.sgd(learning_rate, momentum or None, nesterov),
  )


def adam(
  *, learning_rate: float, b1: float, b2: float, weight_decay: float
) -> optax.GradientTransformation:
  """Returns Adam; the decay is decoupled, as in AdamW."""
  return optax.adamw(learning_rate, b1, b2, weight_decay=weight_decay)


OPTIMIZERS = {'adam': adam, 'sgd': sgd}
