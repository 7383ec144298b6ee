"""Installs the three libraries; the experiments run from a checkout."""

import importlib.util
import pathlib

import setuptools
from setuptools.command import build_ext

JAX = '>=0.10,<0.13'
EXPERIMENTS = [
  'absl-py>=2.1,<3',
  'grain>=0.2.18,<0.3',
  'importlib_resources>=6,<8',  # tensorflow-datasets imports it undeclared
  'jinja2>=3.1,<4',
  'matplotlib>=3.8,<4',
  'ml-collections>=1.0,<2',
  'opencv-python-headless>=4.9,<6',  # decodes the images of tensorflow-datasets
  'orbax-checkpoint>=0.12.8,<0.13',
  'pandas>=2.2,<4',
  'pillow>=10,<14',
  'rich>=13,<16',
  'safetensors>=0.5,<1',
  'scipy>=1.13,<2',
  'submitit>=1.5.3,<2',
  'tabulate>=0.9,<1',  # pandas writes Markdown with it
  'tensorboardX>=2.6,<3',
  'tensorflow-datasets>=4.9.10,<5',
]
DEV = [
  'equinox>=0.11,<1',  # trees of other libraries, in the tests
  'flax>=0.10,<1',
  'hypothesis>=6.100,<7',
  'ipykernel>=6.29,<8',  # executes the tutorial of the site
  'mypy>=1.18,<3',
  'myst-nb>=1.3,<2',
  'playwright>=1.49,<2',  # drives an installed browser
  'pytest>=8,<10',
  'pytest-xdist>=3.6,<4',
  'ruff>=0.14,<1',
  'scikit-image>=0.24,<1',  # photographs for the tests
  'scikit-learn>=1.5,<2',
  'sphinx>=8,<10',
  'sphinx-book-theme>=1.1,<2',
]

# Loaded by path: importing the package needs JAX, which may be absent.
spec = importlib.util.spec_from_file_location(
  'build_kernels', pathlib.Path(__file__).parent / 'sparsity/kernels/build.py'
)
build_kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_kernels)


class BuildKernels(build_ext.build_ext):
  """Compiles the native kernels where there is a compiler, else warns."""

  def build_extension(self, ext):
    """Calls the compiler with the flags of the kernels."""
    path = pathlib.Path(self.get_ext_fullpath(ext.name))
    try:
      build_kernels.compile_library(path)
    except build_kernels.BuildError as error:
      self.warn(f'no native kernels, `xla` will be used: {error}')


setuptools.setup(
  name='sparse-training',
  version='0.2.0',
  description='Powerpropagation and Top-KAST for JAX, Haiku and Optax',
  long_description=pathlib.Path(__file__).with_name('README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(
    include=['sparsity*', 'powerprop*', 'topkast*']
  ),
  # Shipped too, so that `python -m sparsity.kernels.build` works anywhere.
  package_data={
    'sparsity.kernels': ['native/*.cc', 'native/*.h'],
    **{name: ['py.typed'] for name in ('sparsity', 'powerprop', 'topkast')},
  },
  ext_modules=[
    setuptools.Extension('sparsity.kernels._native', [], optional=True)
  ],
  cmdclass={'build_ext': BuildKernels},
  install_requires=[
    f'jax{JAX}',
    f'jaxlib{JAX}',
    'dm-haiku>=0.0.17,<0.1',
    'optax>=0.2.8,<0.3',
    'numpy>=1.26,<3',
  ],
  extras_require={
    **{name: [f'jax[{name}]{JAX}'] for name in ('cuda12', 'cuda13', 'tpu')},
    'experiments': EXPERIMENTS,
    'dev': EXPERIMENTS + DEV,
  },
)
