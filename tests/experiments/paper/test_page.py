"""The page of a sweep, as a browser shows it."""

import contextlib
import itertools
import pathlib
import re
import shutil

import pytest

from experiments import rundir
from experiments.paper import page as page_lib
from experiments.sweep import plan as plan_lib
from tests.experiments.paper import folders

REPOSITORY = pathlib.Path(page_lib.__file__).parents[2]
CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser'))), None
)
SHARED = ('--config.train.log_every=50',)
ACCURACIES = {'rigl': 0.95, 'set': 0.8, 'topkast': 0.96}


def write_plan(folder, points, num_seeds):
  runs = []
  for point, seed in itertools.product(points, range(num_seeds)):
    own = {'powerprop.alphas': (1.0,), 'seeds': (seed,)}
    arguments = [f'--config=configs/mnist_methods.py:{point}']
    arguments += [f'--config.{key}={value}' for key, value in own.items()]
    run = plan_lib.Run(
      f'{point},alpha=1,seed={seed}', (*arguments, *SHARED), {}
    )
    runs.append(run)
  plan = plan_lib.Plan('configs/mnist_methods.py', 'some', SHARED, tuple(runs))
  plan_lib.write(plan, folder)


def make_sweep(folder):
  """Writes a sweep with runs in every state, of two seeds each."""
  ended = list(itertools.product(ACCURACIES, (0.1, 0.05)))
  points = [f'{name},{density}' for name, density in ended]
  write_plan(folder, [*points, 'static,0.1', 'snip,0.1', 'gradual,0.1'], 2)
  for (name, density), seed in itertools.product(ended, (0, 1)):
    folders.write_image(
      folder / f'{name},{density},alpha=1,seed={seed}',
      folders.methods(f'{name},density={density}', seed),
      ACCURACIES[name] + density - seed / 100,
      diverged=(name, density, seed) == ('set', 0.05, 1),
      mask_change=0.1 if name == 'topkast' else 0.0,
    )
  for name in ('static', 'snip'):
    path = folder / f'{name},0.1,alpha=1,seed=0'
    folders.write_image(path, folders.methods(f'{name},density=0.1'), 0.5)
  running = folder / 'static,0.1,alpha=1,seed=0'
  rundir.write_status(running, 'running', step=750, total_steps=3000)
  (path / 'summary.json').write_text('{')


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep')
  make_sweep(folder)
  path = folder / 'page.html'
  lock = rundir.lock(folder / 'static,0.1,alpha=1,seed=0')  # it runs
  with contextlib.chdir(REPOSITORY):
    assert page_lib.main([f'--runs={folder}', f'--out={path}']) == 0
  lock.release()
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
  """Returns a function that opens the page, which may not complain."""
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


def test_every_run_has_its_state_in_one_file(open_page, page_file):
  page = open_page()
  assert [url for url in page.requests if not url.startswith('data:')] == [
    page_file.as_uri()
  ]
  names = [name.removesuffix(',alpha=1') for name in column(page, 0)]
  assert dict(zip(names, column(page, 1), strict=True)) == {
    'rigl,0.1': 'done', 'rigl,0.05': 'done', 'set,0.1': 'done',
    'set,0.05': 'diverged, 1 of 2', 'topkast,0.1': 'done',
    'topkast,0.05': 'done', 'static,0.1': 'running 25%, 1 of 2',
    'snip,0.1': 'unreadable, 1 of 2', 'gradual,0.1': 'waiting',
  }  # fmt: skip
  plots = page.locator('figure[data-plot]').all()
  kinds = [plot.get_attribute('data-plot') for plot in plots]
  assert kinds == ['density', 'flops', 'training', 'masks', 'histograms']
  for plot in plots:
    width = 'image => image.complete && image.naturalWidth'
    assert plot.locator('img').evaluate(width) > 100
  assert page.locator('figure[data-curve]').count() == 7
  counts = page.locator('.count').all_inner_texts()
  assert sorted(counts) == [
    '1 diverged', '1 running', '1 unreadable', '11 done', '4 waiting',
  ]  # fmt: skip


def test_a_heading_sorts_by_number_and_leaves_gaps_last(open_page):
  page = open_page()
  texts = page.locator('#runs th').all_inner_texts()
  index = next(i for i, text in enumerate(texts) if 'accuracy' in text)
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
  page.locator('#runs th button').first.click()  # words
  assert column(page, 0) == sorted(column(page, 0))


@pytest.mark.parametrize(
  ('table', 'text', 'expected'),
  [
    ('#runs', 'RIGL 0.05', 'rigl,0.05,alpha=1'),
    ('#table-1', 'ham topk', 'topkast'),
  ],
)
def test_a_filter_leaves_the_rows_with_all_its_words(
  open_page, table, text, expected
):
  page = open_page()
  page.locator(f'.tools:has(+ .wide > {table}) input').fill(text)
  rows = page.locator(f'{table} tbody tr:visible')
  assert [row.split()[0] for row in rows.all_inner_texts()] == [expected]


def test_a_run_shows_its_message_and_its_command(open_page):
  page = open_page()
  page.get_by_role('link', name='set,0.05,alpha=1', exact=True).click()
  details = page.locator('details[open]')
  assert details.count() == 1
  text = details.inner_text()
  assert 'the loss is nan by step 2' in text
  assert "launch.py --config=configs/mnist_methods.py:set,0.05 '--" in text
  assert "'--config.seeds=(1,)' --config.train.log_every=50 --workdir=" in text
  again = page.locator('pre').first.inner_text()
  assert again.startswith(
    'python launch.py --config=configs/mnist_methods.py --sweep=some '
    '--config.train.log_every=50 --workdir='
  )


@pytest.mark.parametrize(('width', 'scheme'), [(390, 'light'), (1280, 'dark')])
def test_it_fits_a_phone_and_a_desktop_light_or_dark(open_page, width, scheme):
  page = open_page(
    viewport={'width': width, 'height': 844}, is_mobile=width < 500,
    color_scheme=scheme,
  )  # fmt: skip
  page.evaluate("document.querySelectorAll('details').forEach(d => d.open = 1)")
  assert page.evaluate('document.documentElement.scrollWidth') <= width

  def is_dark():
    style = 'node => getComputedStyle(node)'
    color = page.locator('body').evaluate(f'{style}.backgroundColor')
    image = page.locator('figure img').first.evaluate(f'{style}.filter')
    dark = sum(map(int, re.findall(r'\d+', color)[:3])) < 3 * 128
    assert ('invert' in image) == dark
    return dark

  assert is_dark() == (scheme == 'dark')


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
  out = tmp_path / 'page.html'
  assert page_lib.main([f'--runs={tmp_path}', f'--out={out}']) == 2
  assert 'expected sweep.json or run folders' in capsys.readouterr().err
  (tmp_path / 'sweep.json').write_text('{"config": 1}')
  assert page_lib.main([f'--runs={tmp_path}', f'--out={out}']) == 2
  assert 'expected the plan of a sweep' in capsys.readouterr().err
  assert not out.exists()


def test_runs_of_no_table_are_shown_and_hostile_names_are_escaped(tmp_path):
  config = folders.language('topkast')
  config['data']['name'] = evil = '<script>alert(1)</script>'
  folders.write_language(tmp_path / '<img>', config, 2.0)
  page = page_lib.make_page(tmp_path)
  assert '2.000' in page
  assert evil not in page
  assert '<img>' not in page
