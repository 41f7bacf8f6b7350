"""The benchmark tool: its table and its record, whatever the seconds are."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from helpers.small_model import small_config  # noqa: F401

from lite_detr_mmdet.analysis.records import Record

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'tools/analysis_tools/benchmark.py'
PARTS = ['backbone', 'neck', 'encoder', 'decoder', 'bbox_head', 'other']


def test_table_and_record(monkeypatch, capsys, small_config, tmp_path):  # noqa: F811
    out = tmp_path / 'out' / 'record.json'
    words = [
        str(small_config),
        '--shape',
        '64',
        '96',
        '--batch',
        '2',
        '--repeat',
        '3',
        '--accelerate',
        '--json',
        str(out),
    ]
    monkeypatch.setattr(sys, 'argv', [TOOL, *words, '--json', str(out)])
    runpy.run_path(str(ROOT / TOOL), run_name='__main__')
    printed = capsys.readouterr().out
    assert 'small, accelerated' in printed and 'images/s' in printed and 'input: 2x3x64x96, float32' in printed
    record = Record.from_dict(json.loads(out.read_text()))
    assert (record.benchmark, record.batch_size, record.repeat) == ('detectors', 2, 3)
    assert record.settings == dict(accelerate=True)
    first, second = record.results
    assert [first['config'], second['config']] == ['small', 'small, accelerated'] and first['speedup'] == 1
    for row in record.results:
        assert row['part'] == 'detector' and len(row['seconds']) == 3
        assert row['min_s'] <= row['median_s'] <= row['p95_s'] == max(row['seconds'])
        assert row['images_per_s'] == pytest.approx(2 / row['median_s']) and row['peak_bytes'] > 0
        assert list(row['parts_s']) == PARTS and min(row['parts_s'].values()) > 0
    assert first['training_peak_bytes'] > first['peak_bytes'] and second['training_peak_bytes'] is None


def test_model_without_the_parts_of_a_detector(monkeypatch, capsys, small_config, tmp_path):  # noqa: F811
    names = ['lite-mask2former_h2l1-2p1x3_r50_8xb2-lsj-50e_coco', str(small_config)]
    words = [*names, '--shape', '64', '64', '--repeat', '1', '--json', str(tmp_path / 'record.json')]
    monkeypatch.setattr(sys, 'argv', [TOOL, *words])
    runpy.run_path(str(ROOT / TOOL), run_name='__main__')
    first, second = Record.from_dict(json.loads((tmp_path / 'record.json').read_text())).results
    assert first['config'] == names[0] and first['median_s'] > 0 and first['parts_s'] is None
    assert list(second['parts_s']) == PARTS and second['training_peak_bytes'] > 0
    row = next(line for line in capsys.readouterr().out.splitlines() if names[0] in line)
    assert [cell.strip() for cell in row.strip('|').split('|')][6:] == ['-'] * 7


def test_bad_arguments(error_of_tool, small_config):  # noqa: F811
    assert "'none' is not a model" in error_of_tool(TOOL, 'none')
    assert '--shape, --batch and --repeat must be positive' in error_of_tool(TOOL, small_config, '--batch', '0')
    assert 'every CONFIG must have another name' in error_of_tool(TOOL, small_config, small_config)
