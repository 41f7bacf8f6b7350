"""Folders of safetensors and JSON: what is written is what is read, and strangers' folders are data."""

import json
import re

import numpy as np
import pytest
import torch

pytest.importorskip('safetensors', reason='safetensors is not installed: pip install safetensors')

from lite_detr_mmdet.adapters import from_pretrained, hub, push_to_hub, save_pretrained
from lite_detr_mmdet.checkpoint import CheckpointError


@pytest.fixture
def folder(checkpoint, tmp_path):
    return save_pretrained(checkpoint, tmp_path / 'model', name='small')


def change(folder, **values) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_same_detections(folder, detector, image):
    assert sorted(path.name for path in folder.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    assert list(folder.parent.iterdir()) == [folder]  # nothing else is left
    loaded = from_pretrained(folder, device='cpu', show_progress=False)
    expected, found = (item(image, pred_score_thr=0)['predictions'][0] for item in (detector, loaded))
    np.testing.assert_array_equal(found['bboxes'], expected['bboxes'])
    np.testing.assert_array_equal(found['scores'], expected['scores'])
    assert loaded.model.dataset_meta['classes'] == ('disc', 'rectangle', 'triangle')


def test_card(folder):
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\nlicense: apache-2.0\npipeline_tag: object-detection\n')
    assert 'from_pretrained(' in card and 'torch.load' not in card and 'triangle' in card
    assert str(folder.parent) not in (folder / 'config.json').read_text()


def test_folder_of_somebody_else_is_left_alone(checkpoint, tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='must not exist yet, or be empty'):
        save_pretrained(checkpoint, tmp_path)
    with pytest.raises(FileExistsError, match='must not exist yet, or be empty'):
        save_pretrained(checkpoint, tmp_path / 'notes.txt')
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_missing_files(folder, tmp_path):
    (folder / 'config.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'config\.json is missing'):
        from_pretrained(folder)
    for name in (tmp_path / 'none', 'none', 'a/b/c', '../none', 'a b/c', 'https://hub/a'):
        with pytest.raises(FileNotFoundError, match='must be a folder, or owner/name'):
            from_pretrained(name)


@pytest.mark.parametrize(
    'values, message',
    [
        (dict(format='other'), 'must be written by save_pretrained'),
        (dict(config=[1]), 'must be written by save_pretrained'),
        (dict(dataset_meta=dict(classes='disc')), 'must name the classes'),
        (dict(dataset_meta=dict(classes=[1])), 'must name the classes'),
        (dict(dataset_meta=3), 'must name the classes'),
        (dict(config=dict(model=dict(type='subprocess.Popen', args=['touch', 'owned']))), 'is refused'),
    ],
)
def test_config_of_a_stranger(folder, values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if 'model' in values.get('config', ()):
        config = json.loads((folder / 'config.json').read_text())['config']
        values = dict(config={**config, **values['config']})
    change(folder, **values)
    with pytest.raises(CheckpointError, match=f'^{re.escape(str(folder))}.* {message}'):
        from_pretrained(folder, device='cpu')
    assert not (tmp_path / 'owned').exists()


def test_config_that_is_not_json_or_too_large(folder, monkeypatch):
    monkeypatch.setattr(hub, 'LARGEST_CONFIG', 100)
    with pytest.raises(CheckpointError, match='is larger than 100 bytes'):
        from_pretrained(folder)
    monkeypatch.undo()
    for text in ('{', '[' * 100_000):
        (folder / 'config.json').write_text(text)
        with pytest.raises(CheckpointError, match='is not JSON'):
            from_pretrained(folder)
    (folder / 'config.json').write_text('[]')
    with pytest.raises(CheckpointError, match='must be written by save_pretrained'):
        from_pretrained(folder)


def test_damaged_weights(folder):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match='is damaged'):
        from_pretrained(folder)


def test_weights_that_are_not_finite(folder):
    path = folder / 'model.safetensors'
    state_dict = hub.safetensors.load_file(path)
    state_dict['bbox_head.cls_branches.0.weight'][0] = torch.nan
    hub.safetensors.save_file(state_dict, path)
    with pytest.raises(CheckpointError, match=f'^{re.escape(str(folder))} .*finite'):
        from_pretrained(folder, device='cpu')


def test_hub(checkpoint, folder, monkeypatch):
    """Names of files and arguments; the Hub itself is not asked."""
    huggingface_hub = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed')
    calls = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            calls['create'] = (repo_id, private)
            return f'https://hub/{repo_id}'

        def upload_folder(self, repo_id, folder_path):
            calls['files'] = sorted(path.name for path in type(folder)(folder_path).iterdir())

    def snapshot_download(repo_id, revision, allow_patterns):
        calls['patterns'] = allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
    assert push_to_hub(checkpoint, 'me/model', name='small') == 'https://hub/me/model'
    assert calls['create'] == ('me/model', True)
    assert calls['files'] == ['README.md', 'config.json', 'model.safetensors']
    from_pretrained('me/model', device='cpu')
    assert calls['patterns'] == ['model.safetensors', 'config.json']  # nothing that could be run
