"""Compiles the native kernels.

  python -m sparsity.kernels.build

Needs a C++17 compiler (`CXX`, or the first of c++, g++ and clang++) and
jaxlib's headers. Imports nothing from this package, so that `setup.py` can load
this file alone.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

NATIVE = pathlib.Path(__file__).parent / 'native'
LIBRARY = NATIVE.with_name(
  '_native' + (sysconfig.get_config_var('EXT_SUFFIX') or '.so')
)
FLAGS = ('-std=c++17', '-O3', '-fPIC', '-Wall', '-Wno-psabi', '-pthread')
# `isa.cc` is compiled for each instruction set; the rest runs on any processor
# and checks for support before it calls them.
ISAS = {
  'kPortable': (),
  'kAvx2': ('-mavx2', '-mfma'),
  'kAvx512': (
    *('-mavx512f', '-mavx512dq', '-mavx512vl', '-mavx512bw', '-mfma'),
    '-mprefer-vector-width=512',
  ),
}
X86 = ('x86_64', 'amd64')


class BuildError(RuntimeError):
  """The kernels cannot be compiled on this machine."""


def fingerprint() -> str:
  """Returns a digest of the sources, which identifies a stale library."""
  digest = hashlib.sha256()
  for file in sorted(NATIVE.iterdir()):
    if file.suffix in ('.cc', '.h'):
      digest.update(file.name.encode() + b'\0' + file.read_bytes())
  return digest.hexdigest()[:16]


def find_compiler() -> list[str]:
  """Returns the command line of a C++ compiler."""
  chosen = os.environ.get('CXX')
  for name in (chosen,) if chosen else ('c++', 'g++', 'clang++'):
    command = shlex.split(name)
    if shutil.which(command[0]):
      return command
  raise BuildError('no C++ compiler: install one, or set CXX')


def find_headers() -> pathlib.Path:
  """Returns the directory of jaxlib's headers."""
  # The environment's site-packages are not on the path while pip builds in
  # isolation.
  roots = [*sys.path, sysconfig.get_path('platlib')]
  for root in roots:
    include = pathlib.Path(root) / 'jaxlib' / 'include'
    if (include / 'xla' / 'ffi' / 'api' / 'ffi.h').is_file():
      return include
  raise BuildError('expected the headers of jaxlib, found none: install jaxlib')


def compile_library(path: pathlib.Path = LIBRARY) -> pathlib.Path:
  """Compiles the kernels to `path` and returns it, or raises BuildError."""
  compiler, include = find_compiler(), find_headers()
  define = f'-DSPARSITY_SOURCES="{fingerprint()}"'
  isas = ISAS if platform.machine().lower() in X86 else ('kPortable',)
  files: dict[str, tuple[pathlib.Path, tuple[str, ...]]] = {
    file.stem: (file, ()) for file in NATIVE.glob('*.cc')
  }
  source, _ = files.pop('isa')
  for isa in isas:
    files[isa] = source, (*ISAS[isa], f'-DSPARSITY_ISA={isa}')
  with tempfile.TemporaryDirectory() as directory:
    objects = [pathlib.Path(directory, f'{name}.o') for name in files]

    def compile_file(file, target):
      source, flags = file
      flags = (*FLAGS, *flags, define, '-isystem', str(include))
      _run([*compiler, *flags, '-c', str(source), '-o', str(target)])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
      list(executor.map(compile_file, files.values(), objects))
    linked = pathlib.Path(directory, path.name)
    _run(
      [*compiler, '-shared', '-pthread', *map(str, objects), '-o', str(linked)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replaced, not overwritten, for processes that have the old file open.
    moving = path.with_name(f'{path.name}.{os.getpid()}')
    shutil.copyfile(linked, moving)
    moving.replace(path)
  return path


def _run(command):
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  if result.returncode:
    raise BuildError(f'{shlex.join(command)}\n{result.stderr.strip()}')


def main():
  """Compiles the kernels and prints the path of the library."""
  try:
    print('native kernels:', compile_library())
  except BuildError as error:
    sys.exit(f'native kernels not built, using `xla` instead: {error}')


if __name__ == '__main__':
  main()
