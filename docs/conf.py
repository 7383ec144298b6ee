"""Sphinx configuration of the documentation."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ['PYTHONPATH'] = str(ROOT)  # of the notebook's kernel

project = 'Sparse training'
author = 'The sparse training authors'
release = '0.2.0'

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
]
html_theme = 'sphinx_book_theme'
html_title = 'Sparse training for JAX'
html_theme_options = {
  'home_page_in_toc': True,
  'show_toc_level': 2,
  'use_download_button': False,
  'use_fullscreen_button': False,
  'navbar_persistent': [],
}
html_static_path = ['_static']
html_css_files = ['site.css']
# The remarks beside the CSV files are parts of results.md.
exclude_patterns = ['_build', 'results/*.md']

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 300
suppress_warnings = ['config.cache']

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
autoclass_content = 'class'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [('Shapes', 'params_style'), 'Reference']
default_role = 'code'


def escape_bars(app, what, name, obj, options, lines):
  """Escapes |x| in docstrings, which would be a substitution."""
  del app, what, name, obj, options
  lines[:] = [
    line if line.lstrip().startswith('>>>') else line.replace('|', '\\|')
    for line in lines
  ]


def setup(app):
  """Registers `escape_bars`."""
  app.connect('autodoc-process-docstring', escape_bars, priority=900)
