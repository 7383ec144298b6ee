"""The page of a sweep, as a browser shows it."""

import os
import pathlib
import shutil

import pytest

from experiments.common import run as run_lib
from experiments.paper import overview
from experiments.paper import report_page
from tests.experiments.paper import folders

CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser'))), None
)
ACCURACIES = {'rigl': 0.95, 'set': 0.8, 'topkast': 0.96}


def make_sweep(folder):
  """Writes a sweep with runs in every state."""
  runs = []
  for name, accuracy in ACCURACIES.items():
    for density in (0.1, 0.05):
      runs.append(f'{name},{density}')
      config = folders.methods(f'{name},density={density}', seeds=[0, 1])
      folders.write(
        folder / runs[-1],
        config,
        lambda _, seed, a=accuracy, d=density: a + d - seed / 100,
        diverged=(1.0, 1) if runs[-1] == 'set,0.05' else (),
        mask_change=0.1 if name == 'topkast' else None,
      )
  running = folders.methods('static,density=0.1')
  directory = run_lib.open_run(folder / 'static,0.1', running)
  directory.write_status('running', global_step=750, total_steps=3000)
  folders.write(folder / 'snip,0.1', folders.methods('snip'), lambda *_: 0.5)
  (folder / 'snip,0.1' / 'summary.json').write_text('{')
  runs += ['static,0.1', 'snip,0.1', 'gradual,0.1']
  plan = {
    'config': 'configs/mnist_methods.py',
    'sweep': 'some_methods',
    'runs': [
      {
        'name': name,
        'overrides': {'config': f':{name}', 'train.log_every': 50},
        'arguments': [
          f'--config=configs/mnist_methods.py:{name}',
          '--config.train.log_every=50',
          '--config.seeds=(0, 1)',
        ],
      }
      for name in runs
    ],
  }
  run_lib.write_json(folder / overview.FILE, plan)


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep')
  make_sweep(folder)
  path = folder / 'report.html'
  working = pathlib.Path.cwd()
  os.chdir(pathlib.Path(report_page.__file__).parents[2])
  try:
    assert report_page.main([f'--runs={folder}', f'--out={path}']) == 0
  finally:
    os.chdir(working)
  return path


@pytest.fixture(scope='module')
def browser():
  if CHROMIUM is None:
    pytest.skip('no chromium on this machine: the page was not opened')
  from playwright import sync_api

  with sync_api.sync_playwright() as playwright:
    found = playwright.chromium.launch(
      executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
    )
    yield found
    found.close()


@pytest.fixture
def open_page(browser, page_file):
  """Returns what opens the page; it may not complain."""
  contexts, complaints = [], []

  def open_page(**options):
    contexts.append(browser.new_context(**options))
    page = contexts[-1].new_page()
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('request', lambda request: requests.append(request.url))
    requests = []
    page.goto(page_file.as_uri())
    page.requests = requests
    return page

  yield open_page
  for context in contexts:
    context.close()
  assert not complaints


def column(page, index, table='#runs'):
  cells = page.locator(f'{table} tbody tr td:nth-child({index + 1})')
  return cells.all_inner_texts()


def headings(page, table='#runs'):
  return [
    text.split(' ')[0] for text in page.locator(f'{table} th').all_inner_texts()
  ]


def test_the_page_needs_nothing_else(open_page, page_file):
  page = open_page()
  assert page.requests == [page_file.as_uri()]
  text = page_file.read_text()
  assert 'src=' not in text
  assert 'http://' not in text.replace('http://www.w3.org/', '')


def test_every_run_has_its_row_and_state(open_page):
  page = open_page()
  rows = dict(zip(column(page, 0), column(page, 1), strict=True))
  assert rows == {
    'rigl,0.1': 'done', 'rigl,0.05': 'done', 'set,0.1': 'done',
    'set,0.05': 'diverged', 'topkast,0.1': 'done', 'topkast,0.05': 'done',
    'static,0.1': 'running 25%', 'snip,0.1': 'unreadable',
    'gradual,0.1': 'waiting',
  }  # fmt: skip
  counts = page.locator('.count').all_inner_texts()
  assert sorted(counts) == [
    '1 diverged', '1 running', '1 unreadable', '1 waiting', '5 done'
  ]  # fmt: skip


def test_a_heading_sorts_by_number_and_leaves_gaps_last(open_page):
  page = open_page()
  index = headings(page).index('test')
  button = page.locator('#runs th button').nth(index)
  button.click()
  ascending = column(page, index)
  values = [float(text.split()[0]) for text in ascending if text]
  assert len(values) == 6
  assert values == sorted(values)
  assert not any(ascending[6:])
  button.click()
  descending = column(page, index)
  assert descending[:6] == ascending[:6][::-1]
  assert not any(descending[6:])
  header = page.locator('#runs th').nth(index)
  assert header.get_attribute('aria-sort') == 'descending'


def test_a_heading_sorts_words(open_page):
  page = open_page()
  page.locator('#runs th button').first.click()
  assert column(page, 0) == sorted(column(page, 0))


def test_a_filter_leaves_what_it_says(open_page):
  page = open_page()
  page.locator('#filter').fill('RIGL 0.05')
  rows = page.locator('#runs tbody tr:visible')
  assert [text.split()[0] for text in rows.all_inner_texts()] == ['rigl,0.05']


def test_every_plot_is_there(open_page):
  page = open_page()
  kinds = page.locator('figure[data-plot]')
  found = [
    kinds.nth(i).get_attribute('data-plot') for i in range(kinds.count())
  ]
  assert found == ['density', 'flops', 'training', 'masks', 'histograms']
  for i in range(kinds.count()):
    box = kinds.nth(i).locator('svg').bounding_box()
    assert 300 < box['width'] < 1200
    assert box['height'] > 100
  assert page.locator('figure[data-curve]').count() == 7


def test_a_run_shows_its_difference_and_how_it_is_run_again(open_page):
  page = open_page()
  page.get_by_role('link', name='set,0.05', exact=True).click()
  details = page.locator('details[open]')
  assert details.count() == 1
  text = details.inner_text()
  assert 'the loss is nan by step 2' in text
  assert 'method.drop_fraction' in text
  assert 'train.num_steps' not in text  # as in the base
  assert 'launch.py --config=configs/mnist_methods.py:set,0.05 ' in text
  assert (
    "--config.train.log_every=50 '--config.seeds=(0, 1)' --workdir=" in text
  )
  again = page.locator('pre').first.inner_text()
  assert again.startswith(
    'python launch.py --config=configs/mnist_methods.py --sweep=some_methods '
    "'--config.seeds=(0, 1)' --workdir="
  )


def test_a_phone_shows_it_without_scrolling_sideways(open_page):
  page = open_page(viewport={'width': 390, 'height': 844}, is_mobile=True)
  page.evaluate("document.querySelectorAll('details').forEach(d => d.open = 1)")
  width = page.evaluate('document.documentElement.scrollWidth')
  assert width <= 390
  assert page.evaluate('innerWidth') <= 390
  assert page.locator('body').evaluate(
    'body => parseFloat(getComputedStyle(body).fontSize)'
  ) >= 14  # fmt: skip


def brightness(page):
  return page.locator('body').evaluate(
    'body => getComputedStyle(body).backgroundColor.match(/\\d+/g).map(Number)'
    '.reduce((a, b) => a + b) / 3'
  )


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_is_light_or_dark_as_the_reader_likes(open_page, scheme):
  page = open_page(color_scheme=scheme)
  assert (brightness(page) > 128) == (scheme == 'light')
  color = page.locator('figure svg text').first.evaluate(
    'text => getComputedStyle(text).fill'
  )
  ink = page.locator('body').evaluate('body => getComputedStyle(body).color')
  assert color == ink
  page.locator('#theme').click()
  assert (brightness(page) > 128) == (scheme == 'dark')


def test_a_folder_without_a_sweep_or_runs_is_refused(tmp_path, capsys):
  out = tmp_path / 'report.html'
  assert report_page.main([f'--runs={tmp_path}', f'--out={out}']) == 2
  assert 'expected sweep.json or folders of runs' in capsys.readouterr().err
  (tmp_path / 'sweep.json').write_text('{"config": 1}')
  assert report_page.main([f'--runs={tmp_path}', f'--out={out}']) == 2
  assert "expected 'config', 'sweep' and 'runs'" in capsys.readouterr().err
  assert not out.exists()


def test_runs_without_a_sweep_say_what_command_makes_them(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(pathlib.Path(report_page.__file__).parents[2])
  config = folders.methods('rigl,density=0.05,alpha=2')
  folders.write(tmp_path / 'known', config, lambda *_: 0.9)
  config = folders.methods('set,density=0.05', method__drop_fraction=0.7)
  folders.write(tmp_path / 'own', config, lambda *_: 0.8)
  page = report_page.make_page(overview.read_sweep(tmp_path))
  assert 'mnist_methods.py:rigl,density=0.05,alpha=2 --workdir=' in page
  assert 'mnist_methods.py:set,density=0.05' not in page
