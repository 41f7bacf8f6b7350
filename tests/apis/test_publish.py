"""Published checkpoints: what they hold, what not, and that they work."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import lite_detr_mmdet
from lite_detr_mmdet.apis.embedded_config import without_folders
from lite_detr_mmdet.apis.publish import plain, prepare_weight, publish_model
from lite_detr_mmdet.checkpoint import file_sha256, load_checkpoint_file, parse_config_text


@pytest.fixture
def run(checkpoint, tmp_path) -> Path:
    """Checkpoint of a training run, with its log."""
    content = torch.load(checkpoint, weights_only=True)
    content['meta'].update(experiment_name='Small_20260102_030405', epoch=2, iter=8, seed=0)
    content['meta']['cfg'] += "\nwork_dir = '/home/somebody/runs'\n"
    content['message_hub'] = dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])})
    content['optimizer'] = dict(state={0: dict(exp_avg=torch.ones(1000))}, param_groups=[])
    folder = tmp_path / 'run' / '20260102_030405' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [
        dict(loss=30.0, time=0.5, epoch=1, iter=4, memory=100, step=4),
        dict(loss=20.0, time=0.25, epoch=2, iter=8, memory=120, step=8),
        {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'step': 2},
    ]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    torch.save(content, tmp_path / 'run' / 'epoch_2.pth')
    return tmp_path / 'run' / 'epoch_2.pth'


def test_published_file(run, tmp_path):
    published = publish_model(run, tmp_path / 'zoo')
    assert published.sha256 == file_sha256(published.path)
    assert published.path.name == f'small-{published.sha256[:8]}.pth' and published.card.stem == published.path.stem
    assert sorted(path.name for path in (tmp_path / 'zoo').iterdir()) == [published.card.name, published.path.name]
    code = f'import torch; print(*torch.load({str(published.path)!r}, weights_only=True))'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.split() == ['meta', 'state_dict'], result.stderr  # without this package

    content = torch.load(published.path, weights_only=True)
    weights = load_checkpoint_file(run)['state_dict']
    assert content['state_dict'].keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in content['state_dict'].items())
    meta = content['meta']
    assert meta['name'] == 'small' and meta['epoch'] == 2 and meta['dtype'] == 'float32'
    assert meta['dataset_meta']['classes'] == ('disc', 'rectangle', 'triangle')
    assert meta['license'] == 'Apache-2.0' and meta['versions']['torch'] == torch.__version__
    assert meta['training']['iterations'] == 8 and meta['training']['last_loss'] == 20
    assert meta['training']['metrics'] == {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5}
    assert '/home/somebody' not in meta['cfg']
    assert published.path.stat().st_size < run.stat().st_size
    card = published.card.read_text()
    names = '`disc`, `rectangle`, `triangle`'
    for text in ('# small\n', published.sha256, '`LiteDINO`', names, '| coco/bbox_mAP | 0.25 |'):
        assert text in card


def test_half_precision(run, tmp_path):
    full, half = (publish_model(run, tmp_path / 'zoo', name=name, fp16=name == 'half') for name in ('full', 'half'))
    assert half.path.stat().st_size < 0.55 * full.path.stat().st_size
    content = torch.load(half.path, weights_only=True)
    dtypes = {value.dtype for value in content['state_dict'].values()}
    assert dtypes == {torch.float16, torch.int64} and content['meta']['dtype'] == 'float16'
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    scores = []
    for published in (full, half):
        detector = lite_detr_mmdet.Detector(weights=published.path, device='cpu', show_progress=False)
        assert all(value.dtype == torch.float32 for value in detector.model.parameters())
        scores.append(detector(image, pred_score_thr=0)['predictions'][0]['scores'])
    assert len(scores[0]) == 10 and np.abs(np.subtract(*scores)).max() < 1e-2


def test_weights_that_are_not_published():
    with pytest.raises(ValueError, match='w must be finite'):
        prepare_weight('w', torch.tensor([float('nan')]), fp16=False)
    with pytest.raises(ValueError, match=r'w must fit half precision, got values up to 1e\+05'):
        prepare_weight('w', torch.tensor([1e5]), fp16=True)


def test_weights_take_no_more_than_their_own_bytes():
    part = torch.ones(1000, requires_grad=True)[3:5]
    weight = prepare_weight('w', part, fp16=False)
    assert weight.untyped_storage().nbytes() == 8 and not weight.requires_grad and torch.equal(weight, part)


def test_metadata_is_plain():
    content = dict(
        version=torch.__version__, ids=np.arange(2), mean=np.float32(0.5), more=[(1, None, True)], path=Path('a')
    )
    result = plain(content)
    assert result == dict(version=str(torch.__version__), ids=[0, 1], mean=0.5, more=[(1, None, True)], path='a')
    assert type(result['version']) is str and type(result['mean']) is float


def test_folders_leave_the_config():
    """Of the data, of single files, and of outputs, as they stand in a training config."""
    values = parse_config_text(
        "data_root = '/home/me/data/bccd/'\nann_file = '/home/me/data/bccd/train.json'\nwork_dir = '/home/me/x'\n"
        "load_from = '/home/me/y.pth'\nresume = True\nurl = 'https://example.org/a/b.pth'\n"
        "train = dict(data_root='/mnt/me/hit/', lists=['/mnt/me/hit/a.json', '/home/me/other.txt'])\n"
        "test = dict(outfile_prefix='/home/me/runs/detections', windows='C:\\\\me\\\\b.json', plain='a/b.json')\n"
    )
    cleaned = without_folders(values)
    assert '/home/me' not in cleaned.pretty_text and '/mnt/me' not in cleaned.pretty_text
    assert cleaned.ann_file == 'data/bccd/train.json' and cleaned.resume is False
    assert cleaned.train == dict(data_root='data/hit/', lists=['data/hit/a.json', 'other.txt'])
    assert cleaned.test == dict(outfile_prefix='detections', windows='b.json', plain='a/b.json')
    assert cleaned.url == 'https://example.org/a/b.pth'


def test_bad_arguments(run, tmp_path):
    with pytest.raises(FileNotFoundError, match='must be a checkpoint file that exists'):
        publish_model(tmp_path / 'none.pth', tmp_path)
    with pytest.raises(ValueError, match=r"name must be lower-case letters, digits and [._-]+, got 'My model'"):
        publish_model(run, tmp_path, name='My model')
    with pytest.raises(FileNotFoundError, match=r'none\.json'):
        publish_model(run, tmp_path, log=tmp_path / 'none.json')
    torch.save(dict(state_dict={}), tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match=r'bare\.pth must hold weights and their config'):
        publish_model(tmp_path / 'bare.pth', tmp_path)
