"""tools/test.py: metrics, predictions as a file, pictures."""

import json
import pickle

import cv2
import pytest
from helpers.fork_server import run_script

pytestmark = pytest.mark.process


@pytest.fixture(scope='module')
def tested(trained, run_tool, config, tiny_options, tmp_path_factory):
    """Folder of an evaluation with all outputs."""
    folder = tmp_path_factory.mktemp('tested')
    arguments = ('--work-dir', folder, '--out', folder / 'predictions.pkl', '--show-dir', 'pictures')
    run_tool('tools/test.py', config, trained.checkpoint, *arguments, *tiny_options)
    return folder


def test_metrics_are_those_of_training(tested, trained):
    metrics = json.loads(next(tested.glob('*/*.json')).read_text())
    line = next(line for line in reversed(trained.output.splitlines()) if 'coco/bbox_mAP:' in line)
    for name in ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_s', 'coco/bbox_mAP_m'):
        assert metrics[name] == pytest.approx(float(line.split(f'{name}: ')[1].split()[0]), abs=1e-4)


def test_predictions_are_written(tested, shapes):
    predictions = pickle.loads((tested / 'predictions.pkl').read_bytes())
    images = json.loads((shapes / 'annotations' / 'val.json').read_text())['images']
    assert sorted(item['img_id'] for item in predictions) == sorted(image['id'] for image in images)
    for item in predictions:
        instances = item['pred_instances']
        assert len(instances['bboxes']) == len(instances['scores']) == len(instances['labels']) == 10
        assert (instances['bboxes'] >= 0).all() and (instances['bboxes'] <= 64).all()
        assert (instances['scores'].diff() <= 0).all() and instances['labels'].max() < 3


def test_pictures_are_written(tested, shapes):
    pictures = sorted(tested.glob('*/pictures/*'))
    assert len(pictures) == len(list((shapes / 'val').iterdir()))
    image = cv2.imread(str(pictures[0]))
    assert image.shape == (64, 2 * 64, 3)  # ground truth beside predictions


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['no-such.py', 'CHECKPOINT'], "'no-such.py' is not a config file that exists"),
        (['CONFIG', 'no-such.pth'], "must be a checkpoint file that exists or a URL, got 'no-such.pth'"),
        (['CONFIG', 'CHECKPOINT', '--out', 'out.json'], "--out must end in .pkl or .pickle, got 'out.json'"),
    ],
    ids=['config', 'checkpoint', 'out'],
)
def test_bad_arguments(error_of_tool, config, trained, arguments, message):
    names = dict(CONFIG=config, CHECKPOINT=trained.checkpoint)
    assert message in error_of_tool('tools/test.py', *(names.get(item, item) for item in arguments))


def test_augmentation_merges_an_image_and_its_mirror_image(tested, trained, run_tool, config, tiny_options, tmp_path):
    arguments = ('--tta', '--work-dir', tmp_path, '--out', tmp_path / 'predictions.pkl')
    result = run_tool('tools/test.py', config, trained.checkpoint, *arguments, *tiny_options)
    assert 'all fit' in result.output and 'coco/bbox_mAP:' in result.output
    plain, merged = (
        {item['img_id']: item['pred_instances'] for item in pickle.loads((folder / 'predictions.pkl').read_bytes())}
        for folder in (tested, tmp_path)
    )
    assert plain.keys() == merged.keys()
    for name, instances in merged.items():
        assert 0 < len(instances['scores']) <= 10
        assert not instances['scores'].equal(plain[name]['scores'])
        # The best detection of the two is at least as good as that of the image alone.
        assert instances['scores'].max() >= plain[name]['scores'].max() - 1e-5


def test_tools_of_mmdet(tested, shapes, tmp_path):
    words = ['-m', 'lite_detr_mmdet', 'mmdet']
    config_file = tmp_path / 'mine.py'
    name = 'lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
    lines = [f"_base_ = 'lite_detr_mmdet::{name}'", f"data = dict(dataset=dict(data_root='{shapes}/'))"]
    config_file.write_text('\n'.join([*lines, *(f'{split}_dataloader = data' for split in ('train', 'val', 'test'))]))
    calls = (
        ['browse_dataset', config_file, '--not-show', '--output-dir', tmp_path / 'browsed'],
        ['confusion_matrix.py', config_file, tested / 'predictions.pkl', tmp_path / 'matrix'],
    )
    for call in calls:
        result = run_script(*words, *call, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / 'browsed').rglob('*.png'))) == 8
    assert (tmp_path / 'matrix' / 'confusion_matrix.png').stat().st_size > 1000
