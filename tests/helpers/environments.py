"""Environments for packages under test that cost no installation: links to everything that is installed here."""

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

PACKAGE = 'lite_detr'


def make_environment(folder: Path) -> Path:
    """Make an environment with all that can be imported here but this package; return its interpreter.

    pip and setuptools find what is linked as if it were installed there.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / 'bin' / 'python'
    (target,) = (folder / 'lib').glob('python*/site-packages')
    for source in map(Path, site.getsitepackages()):
        for entry in source.iterdir():
            if PACKAGE not in entry.name.replace('-', '_') and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)
    return python


def run(*command, cwd: Path, check: bool = True, **env) -> str:
    """Run a command outside of the source tree and return what it printed."""
    variables = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**variables, 'PIP_NO_INDEX': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1', **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert not check or result.returncode == 0, result.stdout
    return result.stdout


def build_wheel(sources: Path, folder: Path) -> Path:
    """Build a wheel without compiled operators, which have tests of their own."""
    command = (sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, sources)
    run(*command, cwd=folder.parent, LITE_DETR_WITHOUT_OPS='1')
    (path,) = folder.glob('*.whl')
    return path
