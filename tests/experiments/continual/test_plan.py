"""What a config says is checked before anything is read or trained."""

import jax
import pytest

from experiments import continual_learning
from experiments.common import build
from experiments.continual import plan as plan_lib
from tests.experiments.continual import small


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'seeds': (1, 1)}, 'config.seeds: expected different seeds'),
    ({'heads': 'own'}, "config.heads: expected one of .* got 'own'"),
    ({'tasks': {'num_tasks': 0}}, 'num_tasks >= 1, got 0'),
    ({'strategy': {'gamma': 1.2}}, r'gamma in \[0, 1\], got 1.2'),
    ({'strategy': {'densities': (0.1, 0.5)}}, 'decreasing densities'),
    ({'strategy': {'biases': 'none'}}, "biases out of .* got 'none'"),
    ({'strategy': {'when_exhausted': 'x'}}, "when_exhausted out of .* got 'x'"),
    ({'strategy': {'gama': 1.0}}, "config.strategy: unknown key 'gama'"),
    ({'strategy': {**small.PACKNET, 'density': 0.0}}, r'density in \(0, 1\]'),
    ({'strategy': {**small.PACKNET, 'retrain_steps': 0}}, 'retrain_steps >= 1'),
    ({'train': {'num_steps': 0}}, 'config.train.num_steps: expected >= 1'),
    ({'test': {'every': 0}}, 'config.test.every: expected >= 1'),
    ({'loss': {'label_smoothing': 1.0}}, 'label_smoothing: expected in'),
    ({'powerprop': {'alphas': (0.5,)}}, r'alpha >= 1, got \[0.5\]'),
    (
      {
        'strategy': {
          'name': 'ewc', 'strength': 1.0, 'num_examples': 10,
          'fisher_batch_size': 4, 'keep_optimizer': False,
        }
      },
      'a multiple of fisher_batch_size=4, got 10',
    ),
  ],
)  # fmt: skip
def test_mistakes_are_refused_before_data_are_read(changes, message):
  changes.setdefault('strategy', None)
  with pytest.raises(ValueError, match=message):
    build.call(plan_lib.make_plan, small.make_sections(**changes))


def test_a_batch_larger_than_the_smallest_task_is_refused():
  sections = small.make_sections(train={'batch_size': 60_000})
  with pytest.raises(ValueError, match='batch_size: expected 1 to 55000'):
    build.call(continual_learning.build, sections)


@pytest.mark.parametrize('strategy', [None, {'name': 'joint'}])
def test_what_is_known_without_data_is_a_step_that_lowers(strategy):
  [outline] = build.call(
    continual_learning.outlines, small.make_sections(strategy)
  )
  after, _ = jax.eval_shape(outline.step, *outline.arguments)
  assert jax.tree.structure(after) == jax.tree.structure(outline.arguments[0])
