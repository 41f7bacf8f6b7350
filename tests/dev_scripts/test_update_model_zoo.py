""".dev_scripts/update_model_zoo.py: figures into metafiles, latency into tables, tables into pages."""

import importlib
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lite_detr_mmdet.analysis import detector_timing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool() -> dict:
    return runpy.run_path(str(ROOT / '.dev_scripts' / 'update_model_zoo.py'))


def test_figures_go_into_metafiles(tool):
    text = (
        '# A comment.\nCollections: []\nModels:\n- Name: a\n  Metadata: {Paper AP: 50.0}\n- Name: b\n  Metadata: {}\n'
    )
    counted = dict(gmacs=dict(total=152.743, encoder=54.705), params_m=dict(total=48.488), trainable_params_m=48.212)
    written = tool['update_metafile'](text, {'a': counted})
    assert written.startswith('# A comment.\nCollections:')
    first, second = yaml.safe_load(written)['Models']
    assert first['Metadata'] == {
        'Paper AP': 50.0,
        'GMACs': 152.7,
        'Encoder GMACs': 54.7,
        'Parameters (M)': 48.5,
        'Trainable Parameters (M)': 48.2,
    }
    assert second['Metadata'] == {}
    assert tool['update_metafile'](written, {'a': counted}) == written


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Write the record of a run of benchmarks/detectors.py, by its own writer, without measuring."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    detectors = importlib.import_module('detectors')

    def write(name: str, date: str, seconds: float, *arguments: str, **changes) -> None:
        monkeypatch.setattr(sys, 'argv', ['detectors.py', 'a', '--out', str(tmp_path / name), *arguments])
        monkeypatch.setattr(detectors, 'existing_config', str)
        calls = {part: lambda *_: lambda: None for part in ('encoder', 'detector')}
        monkeypatch.setattr(detectors, 'CALLS', calls)
        monkeypatch.setattr(detectors, 'build_model', lambda *_: None)
        monkeypatch.setattr(detectors, 'make_batch', lambda *_: None)
        monkeypatch.setattr(detectors, 'measure_errors', lambda *_: {})
        monkeypatch.setattr(
            detector_timing,
            'time_interleaved',
            lambda calls, repeat, device: {name: [seconds] * repeat for name in calls},
        )
        environment = replace(detectors.describe_environment('cpu'), date=date, **changes)
        with monkeypatch.context() as patch:
            patch.setattr(detectors, 'describe_environment', lambda *_: environment)
            detectors.main()

    return write


def test_latency_is_that_of_the_newest_run(tool, write, tmp_path):
    write('new', '2026-02-01', 2.0)
    write('old', '2026-01-01', 3.0)
    write('larger', '2026-03-01', 4.0, '--batch-size', '8')
    write('half', '2026-03-01', 4.0, '--dtype', 'bfloat16')
    write('one_thread', '2026-03-01', 4.0, '--threads', '1')
    write('keep_pages', '2026-03-01', 1.0, allocator={'MALLOC_TOP_PAD_': '1'})
    write('gpu/h100', '2026-01-01', 0.05, device='cuda', gpu='a GPU')
    (tmp_path / 'other.json').write_text('{"rows": []}')
    assert tool['read_latency'](tmp_path) == {'cpu': {'a': '2000'}, 'cuda': {'a': '50'}}


def test_runs_that_contradict_each_other(tool, write, tmp_path):
    write('one', '2026-02-01', 2.0)
    write('two', '2026-02-01', 3.0)
    with pytest.raises(ValueError, match=r'one\.json and .*two\.json are of the same time and both time a'):
        tool['read_latency'](tmp_path)


def test_file_that_is_no_record(tool, write, tmp_path):
    write('one', '2026-02-01', 2.0)
    text = (tmp_path / 'one.json').read_text()
    (tmp_path / 'one.json').write_text(text.replace('"dtype"', '"precision"'))
    with pytest.raises(ValueError, match=r"one\.json is no record of benchmarks/detectors\.py: .*'precision'"):
        tool['read_latency'](tmp_path)


def test_tables_go_between_their_marks(tool):
    begin, end = tool['BEGIN'], tool['END']
    page = f'one\n{begin}\nold\n{end}\ntwo\n{begin}\n{end}\nthree\n'
    written = tool['insert_tables'](page, ['| a |'], ['| b |'])
    assert written == f'one\n{begin}\n\n| a |\n\n{end}\ntwo\n{begin}\n\n| b |\n\n{end}\nthree\n'
    with pytest.raises(ValueError, match='1 times, got 2'):
        tool['insert_tables'](page, ['| a |'])
