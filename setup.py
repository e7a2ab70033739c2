"""Builds the native part; everything that describes the package is in pyproject.toml.

The objects live in build/native and are compiled by ninja, so `pip install .`, `pip install -e .` and
`python setup.py build_ext --inplace`, run in a checkout, share them and recompile only what has changed.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # pip runs this file without its folder on the path

from build_support.native import build_extension_module  # noqa: E402


class NinjaBuild(build_ext):
    """Hands the extension module to ninja and puts the result where setuptools wants it."""

    def build_extension(self, ext: Extension) -> None:
        build_extension_module(
            root=ROOT,
            destination=Path(self.get_ext_fullpath(ext.name)),
            version=self.distribution.get_version(),
            jobs=self.parallel,
            verbose=self.verbose > 1,
        )

    def get_source_files(self) -> list[str]:
        return []  # MANIFEST.in lists them


# A CUDA part becomes a second Extension here, `convext._cuda`, built when nvcc is found.
setup(
    ext_modules=[Extension("convext._C", sources=[])],
    cmdclass={"build_ext": NinjaBuild},
)
