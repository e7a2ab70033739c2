"""Builds the native part; everything that describes the package is in pyproject.toml.

The objects live in build/native and are compiled by ninja, so `pip install .`, `pip install -e .` and
`python setup.py build_ext --inplace`, run in a checkout, share them and recompile only what has changed.
"""

import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # pip runs this file without its folder on the path

from build_support.native import build_modules  # noqa: E402


class NinjaBuild(build_ext):
    """Hands the extension modules to ninja and puts the results where setuptools wants them."""

    def build_extensions(self) -> None:
        built = build_modules(
            root=ROOT, version=self.distribution.get_version(), jobs=self.parallel, verbose=self.verbose > 1
        )
        for ext in list(self.extensions):
            destination = Path(self.get_ext_fullpath(ext.name))
            module = built.get(ext.name.rpartition(".")[2])
            if module is None:  # the CUDA part, which there need not be; an older one would not fit the other module
                self.extensions.remove(ext)
                destination.unlink(missing_ok=True)
                continue
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module, destination)

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        if not any(ext.name == "convext._cuda" for ext in self.extensions):
            (ROOT / "convext" / Path(self.get_ext_filename("convext._cuda")).name).unlink(missing_ok=True)

    def get_source_files(self) -> list[str]:
        return []  # MANIFEST.in lists them


setup(
    ext_modules=[Extension("convext._C", sources=[]), Extension("convext._cuda", sources=[])],
    cmdclass={"build_ext": NinjaBuild},
)
