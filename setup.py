"""Build the package; static metadata is in setup.cfg."""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'lite_detr_mmdet'
MIM_FILES = ('model-index.yml', 'configs', 'tools', 'demo')


class BuildPyWithMim(build_py):
    """Put configs and tools where mim looks for them, in ``lite_detr_mmdet/.mim``.

    A wheel gets copies; an editable install gets links, so that an edited config takes effect at once.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            mim = ROOT / PACKAGE / '.mim'
            mim.mkdir(exist_ok=True)
            for name in MIM_FILES:
                link = mim / name
                if link.is_symlink() or link.is_file():
                    link.unlink()
                elif link.is_dir():
                    shutil.rmtree(link)
                link.symlink_to(os.path.relpath(ROOT / name, mim))
            return
        mim = Path(self.build_lib) / PACKAGE / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM_FILES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, mim / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy2(source, mim / name)

    def get_outputs(self, include_bytecode: bool = True) -> list:
        mim = Path(self.build_lib) / PACKAGE / '.mim'
        return super().get_outputs(include_bytecode) + [str(path) for path in mim.rglob('*') if path.is_file()]


setup(cmdclass=dict(build_py=BuildPyWithMim))
