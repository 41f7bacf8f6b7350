"""Downloads: checked, cached, continued; plain words without a network."""

import hashlib

import pytest
from lite_detr_mmdet.checkpoint import cached_weights

CONTENT = bytes(range(256)) * 4096
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


def test_download_is_made_once(server, cache, capfd):
    server.files[f'/zoo/model-{DIGITS}.pth'] = CONTENT
    url = f'{server.url}/zoo/model-{DIGITS}.pth'
    path = cached_weights(url)
    assert path == cache / f'model-{DIGITS}.pth' and path.read_bytes() == CONTENT
    assert cached_weights(url) == path and len(server.requests) == 1
    assert '100%' in capfd.readouterr().err  # the progress bar


def test_interrupted_download_goes_on(server, cache):
    name = f'/model-{DIGITS}.pth'
    server.files[name], server.limit = CONTENT, 300_000
    with pytest.raises(ConnectionError, match='ended after 300000 of 1048576 bytes'):
        cached_weights(server.url + name)
    assert [path.name for path in cache.iterdir() if path.suffix != '.lock'] == [f'model-{DIGITS}.pth.partial']
    server.limit = None
    assert cached_weights(server.url + name).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, 'bytes=300000-']


@pytest.mark.parametrize('there', [CONTENT[:1000], CONTENT], ids=['a part', 'all'])
def test_server_that_cannot_continue(server, cache, there):
    name = f'/model-{DIGITS}.pth'
    server.files[name] = CONTENT
    server.ranges = there == CONTENT
    cache.mkdir(parents=True)
    (cache / f'model-{DIGITS}.pth.partial').write_bytes(there)
    assert cached_weights(server.url + name).read_bytes() == CONTENT


def test_wrong_content_is_removed(server, cache):
    server.files['/model-00000000.pth'] = CONTENT
    url = f'{server.url}/model-00000000.pth'
    with pytest.raises(ValueError, match=f'must have a SHA-256 that starts with 00000000, got {DIGITS}'):
        cached_weights(url)
    assert not [path for path in cache.iterdir() if path.suffix != '.lock']
    assert cached_weights(url, sha256=DIGITS).read_bytes() == CONTENT


def test_without_a_network(server, cache):
    url = f'{server.url}/model.pth'
    with pytest.raises(ConnectionError, match=r'model\.pth cannot be reached \(Not Found\) and .* is not there'):
        cached_weights(url)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / 'model.pth').write_bytes(CONTENT)
    assert cached_weights(url).read_bytes() == CONTENT  # what is there needs no network
    with pytest.raises(ConnectionError, match='Try again with a network'):
        cached_weights('http://127.0.0.1:9/other.pth')


def test_files(tmp_path):
    path = tmp_path / 'model.pth'
    with pytest.raises(FileNotFoundError, match='weights must be a file that exists or an address'):
        cached_weights(path)
    path.write_bytes(CONTENT)
    assert cached_weights(path) == cached_weights(str(path)) == path
