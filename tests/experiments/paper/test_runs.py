"""Run folders: what is read, and what is left out."""

import pytest

from experiments.paper import runs
from tests.experiments.paper import folders


def test_a_network_has_a_row_as_trained_and_one_for_each_level(tmp_path):
  config = folders.powerprop(2.0, 1)
  folders.write_image(tmp_path / 'run', config, 0.8)
  found, left = runs.read(tmp_path)
  assert not left
  frame = runs.to_frame(found)
  assert frame.share.isna().tolist() == [True, False, False]
  assert frame.accuracy.tolist() == [0.8, 0.8 * 0.1, 0.8]
  facts = frame[['alpha', 'seed', 'method', 'density', 'seconds']]
  assert (facts == [2.0, 1, 'dense', 1.0, 12.0]).all(axis=None)


RUNNING = '{"status": "running", "step": 7, "total_steps": 9}'


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('config.json', '{"seeds": [0], "powerprop": {}}', 'version 0.1'),
    ('status.json', RUNNING, 'interrupted at step 7 of 9'),
    ('status.json', '[1]', 'unknown status: [1]'),
    ('summary.json', '[1]', 'expected the form of this version'),
    ('metrics.jsonl', '{"step": 1, "split": "a"}\n', "expected a 'test' row"),
  ],
)
def test_an_unreadable_folder_is_named_and_the_others_are_read(
  tmp_path, name, content, message
):
  config = folders.powerprop(2.0)
  folders.write_image(tmp_path / 'good', config, 0.5)
  folders.write_image(tmp_path / 'bad', config, 0.5)
  (tmp_path / 'bad' / name).write_text(content)
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  found, left = runs.read(tmp_path)
  assert [run.path.name for run in found] == ['good']
  [(path, why)] = left
  assert path.name == 'bad'
  assert message in why
  after = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  assert after == before
