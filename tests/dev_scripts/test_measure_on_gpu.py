""".dev_scripts/measure_on_gpu.sh and what it calls, as far as they go without a GPU."""

import importlib.util
import io
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = '.dev_scripts/measure_on_gpu.sh'


@pytest.fixture
def folders(tmp_path) -> dict:
    """Settings that keep the script out of the source tree."""
    folders = {name: tmp_path / name.lower() for name in ('WORK', 'RESULTS', 'OUT')}
    folders['OUT'].mkdir()
    return {name: str(folder) for name, folder in folders.items()}


def test_unknown_stage(run_tool, folders):
    result = run_tool(SCRIPT, 'tests', check=False, **folders)
    assert result.returncode == 2 and 'no such stage: tests' in result.output


@pytest.mark.parametrize('stage', ['build', 'mmcv', 'kernels'])
def test_first_failure_ends_the_stage(run_tool, folders, tmp_path, stage):
    """Each stage begins with Python: what follows would say that it cannot be found, or fail in another way."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "called with $1"\nexit 3\n')
    python.chmod(0o755)
    (tmp_path / 'work' / 'wheels').mkdir(parents=True)
    (tmp_path / 'work' / 'wheels' / 'mmcv.whl').write_text('')
    result = run_tool(SCRIPT, stage, check=False, **{**folders, 'PYTHON': str(python)})
    assert result.returncode == 3 and result.output.count('called with') == 1
    assert f'{stage}: exit status 3' in result.output
    assert 'called with' in (tmp_path / 'out' / f'{stage}.log').read_text()


def test_results_come_back_with_the_log(run_tool, folders, tmp_path):
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\nsleep 0.1; echo {{}} >{folders["RESULTS"]}/limits.json\n')
    python.chmod(0o755)
    (tmp_path / 'results').mkdir()
    (tmp_path / 'results' / 'old.json').write_text('')
    run_tool(SCRIPT, 'limits', **{**folders, 'PYTHON': str(python)})
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['limits.json', 'limits.log']


def test_mmcv_operator_needs_its_source(tmp_path):
    spec = importlib.util.spec_from_file_location('build_mmcv_op', ROOT / '.dev_scripts' / 'build_mmcv_op.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    archive = tmp_path / 'mmcv.tar.gz'
    for names, found in ((['setup.py'], False), ([module.SOURCE, f'{module.FOLDER}/cuda/a.cuh', 'setup.py'], True)):
        with tarfile.open(archive, 'w:gz') as content:
            for name in names:
                content.addfile(tarfile.TarInfo(f'mmcv-2.1.0/{name}'), io.BytesIO())
        if found:
            module.extract(archive, tmp_path / 'mmcv')
            files = {path.relative_to(tmp_path / 'mmcv').as_posix() for path in (tmp_path / 'mmcv').rglob('*.*')}
            assert files == {*names} - {'setup.py'}
        else:
            with pytest.raises(SystemExit, match='is no source distribution of mmcv'):
                module.extract(archive, tmp_path / 'mmcv')
