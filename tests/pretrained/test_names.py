"""Names of published weights: resolved without torchvision, checked, found locally, clear without a network."""

import hashlib
import io
import sys

import pytest
import torch
from mmengine.runner import CheckpointLoader

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.checkpoint import CheckpointError
from lite_detr_mmdet.pretrained import names, pretrained_file, pretrained_url


def saved(content: dict) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture
def published(server, cache, monkeypatch):
    """Publish weights under a name, on a server of this machine; returns their file name."""

    def publish(name: str, content: dict) -> str:
        data = saved(content)
        file = f'{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth'
        server.files[f'/{file}'] = data
        urls = dict(names.published_urls('torchvision_0.12.json'), **{name: f'{server.url}/{file}'})
        monkeypatch.setattr(names, 'published_urls', lambda table: urls)
        return file

    monkeypatch.setitem(sys.modules, 'torchvision', None)  # importing it fails
    return publish


@pytest.mark.parametrize(
    'name, url',
    [
        ('torchvision://resnet50', 'https://download.pytorch.org/models/resnet50-0676ba61.pth'),
        ('modelzoo://resnet18', 'https://download.pytorch.org/models/resnet18-f37072fd.pth'),
        (
            'open-mmlab://detectron2/resnet50_caffe',
            'https://download.openmmlab.com/pretrain/third_party/resnet50_msra-5891d200.pth',
        ),
        ('https://example.org/weights.pth', 'https://example.org/weights.pth'),
    ],
)
def test_urls(name, url):
    assert pretrained_url(name) == url


def test_name_that_nobody_published():
    with pytest.raises(ValueError, match=r'torchvision://resnet51 is not a name .* torchvision://resnet50'):
        pretrained_url('torchvision://resnet51')


def test_download(published, server, cache):
    file = published('resnet50', {'conv1.weight': torch.arange(3.0)})
    for _ in range(2):
        checkpoint = CheckpointLoader.load_checkpoint('torchvision://resnet50', map_location='cpu')
        assert checkpoint['conv1.weight'].tolist() == [0, 1, 2]
    assert [path for path, _ in server.requests] == [f'/{file}']


def test_wrong_content(published, server):
    file = published('resnet50', {'conv1.weight': torch.arange(3.0)})
    server.files[f'/{file}'] = saved({'conv1.weight': torch.zeros(3)})
    with pytest.raises(CheckpointError, match='must have a SHA-256 that starts with'):
        pretrained_file('torchvision://resnet50')


@pytest.mark.parametrize('place', ['folder', 'hub'])
def test_file_that_is_there(published, server, cache, tmp_path, monkeypatch, place):
    file = published('resnet50', {'conv1.weight': torch.arange(3.0)})
    folder = tmp_path / 'weights' if place == 'folder' else cache
    folder.mkdir(parents=True)
    (folder / file).write_bytes(server.files[f'/{file}'])
    if place == 'folder':
        monkeypatch.setenv('LITE_DETR_PRETRAINED', str(folder))
    assert pretrained_file('torchvision://resnet50') == folder / file
    assert server.requests == []


def test_file_of_the_folder_that_is_another(published, tmp_path, monkeypatch):
    file = published('resnet50', {'conv1.weight': torch.arange(3.0)})
    (tmp_path / file).write_bytes(saved({'conv1.weight': torch.zeros(3)}))
    monkeypatch.setenv('LITE_DETR_PRETRAINED', str(tmp_path))
    with pytest.raises(CheckpointError, match='as its name says'):
        pretrained_file('torchvision://resnet50')


def test_broken_file_of_the_cache_is_fetched(published, server, cache):
    file = published('resnet50', {'conv1.weight': torch.arange(3.0)})
    cache.mkdir(parents=True)
    (cache / file).write_bytes(b'broken')
    assert pretrained_file('torchvision://resnet50').read_bytes() == server.files[f'/{file}']


def test_without_a_network(published, server, cache):
    file = published('resnet50', {'conv1.weight': torch.arange(3.0)})
    server.files.clear()
    with pytest.raises(ConnectionError) as error:
        CheckpointLoader.load_checkpoint('torchvision://resnet50', map_location='cpu')
    assert f'torchvision://resnet50 needs the file {file}' in str(error.value)
    assert str(cache) in str(error.value) and 'LITE_DETR_PRETRAINED' in str(error.value)
