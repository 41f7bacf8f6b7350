"""One wheel with compiled operators, installed in two Pythons, detects in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
import torch
from helpers.environments import make_environment
from test_packaging import copy_sources

pytestmark = [pytest.mark.slow, pytest.mark.process]
ROOT = Path(__file__).resolve().parent.parent
SMOKE_TEST = ROOT / '.dev_scripts' / 'smoke_test.py'
TORCH = torch.__version__.partition('+')[0]


def run(*command, cwd: Path) -> str:
    """Run a command outside of the sources; return what it printed."""
    env = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    env['PIP_DISABLE_PIP_VERSION_CHECK'] = '1'
    words = list(map(str, command))
    result = subprocess.run(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
    return result.stdout


def find_other_python() -> Optional[str]:
    """The newest other supported Python: named by PYTHON_3_12 and the like, on the path, or pyenv's."""
    for minor in (13, 12, 11, 10):
        if minor == sys.version_info.minor:
            continue
        pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
        found = [os.environ.get(f'PYTHON_3_{minor}'), shutil.which(f'python3.{minor}')]
        found += map(str, sorted(pyenv.glob(f'3.{minor}.*/bin/python'), reverse=True))
        for python in filter(None, found):
            if subprocess.run([python, '-c', 'import venv, ensurepip'], capture_output=True).returncode == 0:
                return python
    return None


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    sources = copy_sources(tmp_path_factory.mktemp('sources'))
    folder = tmp_path_factory.mktemp('wheel')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, sources, cwd=folder)
    (path,) = folder.iterdir()
    return path


def detect(python: Path, folder: Path) -> None:
    """A training step and a detection in an empty folder, with what the environment of ``python`` has."""
    folder.mkdir()
    output = run(python, '-W', 'ignore', SMOKE_TEST, '--installed-in', python.parent.parent, cwd=folder)
    assert re.search(r'\d+ models, [1-9]\d* detections', output), output


def test_this_python(wheel, tmp_path):
    assert re.search(r'-cp310-abi3-\w+\.whl$', wheel.name), wheel.name
    python = make_environment(tmp_path / 'environment')
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', wheel, cwd=tmp_path)
    detect(python, tmp_path / 'empty')


def test_another_python(wheel, tmp_path):
    other = find_other_python()
    if other is None:
        pytest.skip('there is no other Python from 3.10 to 3.13')
    environment = tmp_path / 'environment'
    run(other, '-m', 'venv', environment, cwd=tmp_path)
    python = environment / 'bin' / 'python'
    pip = [python, '-m', 'pip', 'install', '-q', '--no-compile']
    result = subprocess.run([*map(str, pip), f'torch=={TORCH}', 'mmcv-lite==2.1.0'], capture_output=True, text=True)
    if result.returncode != 0:
        pytest.skip(f'torch {TORCH} is not to be had for {other}: {result.stderr.splitlines()[-1]}')
    run(*pip, wheel, cwd=tmp_path)
    detect(python, tmp_path / 'empty')
