"""Run folders (stand-in until the module of the same name is merged)."""

from collections.abc import Mapping
import datetime
import os
import pathlib
from typing import Any

from experiments.common import run

FORMAT = 2
FolderError = run.FolderError
read_json = run.read_json
to_json = run.to_json
write_bytes = run.write_bytes
write_json = run.write_json


def create(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
  """Creates a run folder with its config."""
  pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
  value = {'format': FORMAT, 'version': '0.2.0', 'config': dict(config)}
  write_json(pathlib.Path(workdir) / 'config.json', value)


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the config of a run folder."""
  path = pathlib.Path(workdir) / 'config.json'
  value = read_json(path)
  if not isinstance(value, dict) or value.get('format') != FORMAT:
    raise FolderError(
      f'expected a run folder of format {FORMAT}, got {path} of version 0.1; '
      'train again'
    )
  return value['config']


def write_status(
  workdir: str | os.PathLike[str], status: str, **fields: Any
) -> None:
  """Writes status.json."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  value = {'status': status, 'updated': now, **fields}
  write_json(pathlib.Path(workdir) / 'status.json', value)


def read_status(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """Returns status.json, or None."""
  path = pathlib.Path(workdir) / 'status.json'
  return read_json(path) if path.exists() else None


def write_summary(
  workdir: str | os.PathLike[str], values: Mapping[str, Any]
) -> None:
  """Writes summary.json."""
  write_json(pathlib.Path(workdir) / 'summary.json', dict(values))
