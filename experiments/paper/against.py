"""The section "Against the papers": each claim with its finding."""

from collections.abc import Mapping
import pathlib
import re

import pandas as pd

from experiments import build
from experiments.paper import claims
from experiments.paper import findings
from experiments.paper import render

TUNING = 'tuning'  # folder of the tries, beside the tables
_NO_RUNS = 'not tested', 'the table has no runs yet'
_INTRODUCTION = """\
## Against the papers

Each claim is looked up in the tables below. An order may be off, and "no worse"
may trail, by the larger deviation over seeds of the two, 1 point at most;
"undecided" is a difference within its standard error.
"""


def finding(
  claim: claims.Claim,
  cells: Mapping[str, pd.DataFrame],
  directory: pathlib.Path,
) -> findings.Finding:
  """Returns the verdict on a claim and its figures."""
  if claim.table not in cells:
    return _NO_RUNS
  try:
    verdict, figures = claim.check(cells[claim.table])
  except LookupError:
    return _NO_RUNS
  tries = directory / TUNING / f'{claim.tuning}.csv'
  if verdict != findings.YES and claim.tuning and tries.exists():
    num = len(pd.read_csv(tries))
    figures += f'; tried: {num} runs, [`{claim.tuning}`](#{TUNING})'
  return verdict, figures


def to_markdown(
  cells: Mapping[str, pd.DataFrame], directory: pathlib.Path
) -> str:
  """Returns the section on all claims, those without a test last."""
  rows = [
    (claim.source, claim.text, *finding(claim, cells, directory))
    for claim in claims.CLAIMS
  ]
  rows += [
    (source, text, 'not tested', why) for source, text, why in claims.UNTESTED
  ]
  names = ['of', 'claim', 'finding', 'figures']
  frame = pd.DataFrame(rows, columns=names)
  return f'{_INTRODUCTION}\n{render.to_markdown(frame, len(names))}\n'


def fill(
  text: str, cells: Mapping[str, pd.DataFrame], directory: pathlib.Path
) -> str:
  """Returns a page with a finding in each item that ends with `<!-- NAME -->`.

  Raises ValueError for the name of no claim.
  """
  known = {claim.name: claim for claim in claims.CLAIMS}

  def replace(found: re.Match) -> str:
    name = found.group(1)
    if name not in known:
      hint = build.did_you_mean(name, known)
      raise ValueError(f'expected the name of a claim, got {name!r}{hint}')
    verdict, figures = finding(known[name], cells, directory)
    figures = figures.replace('(#', f'({directory.name}.md#')
    text = known[name].text
    text = text[0].upper() + text[1:]
    return f'- {text}. *{verdict}*: {figures}. <!-- {name} -->'

  return re.sub(r'^- .*<!-- (\w+) -->$', replace, text, flags=re.MULTILINE)
