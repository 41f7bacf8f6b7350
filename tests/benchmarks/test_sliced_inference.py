"""benchmarks/sliced_inference.py and benchmarks/coco_evaluation.py on a few images."""

import json

import pytest
from helpers.small_model import checkpoint, small_config  # noqa: F401

pytestmark = pytest.mark.process


def test_sliced_inference(run_tool, shapes, checkpoint, tmp_path):  # noqa: F811
    pytest.importorskip('sahi', reason='sahi is not installed: pip install sahi')
    out = tmp_path / 'record.json'
    files = (shapes / 'annotations' / 'val.json', shapes / 'val', checkpoint)
    run_tool('benchmarks/sliced_inference.py', *files, '--tile', '48', '--limit', '2', '--out', out)
    whole, tiles = json.loads(out.read_text())['results']
    assert whole['name'] == 'whole images' and tiles['name'] == 'tiles of 48'
    for result in (whole, tiles):
        assert result['images'] == 2 and result['median_s'] > 0 and 'AP small' in result


def test_coco_evaluation(run_tool, tmp_path):
    pytest.importorskip('faster_coco_eval', reason='faster-coco-eval is not installed: pip install faster-coco-eval')
    out = tmp_path / 'record.json'
    run_tool('benchmarks/coco_evaluation.py', '--images', '10', '--repeat', '1', '--out', out)
    record = json.loads(out.read_text())['results']
    assert (
        record['equal'] and 0 < record['mAP'] < 1 and record['median_s'].keys() == {'CocoMetric', 'FasterCocoMetric'}
    )
