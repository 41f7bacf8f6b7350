"""Downloads: checked, cached; plain words without a network; nothing outside of the cache."""

import errno
import threading
import time
import urllib.request
from types import SimpleNamespace

import pytest
from helpers.downloads import CONTENT, DIGITS, NAME, checkpoint_bytes, downloads

from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError, cached_weights, download
from lite_detr_mmdet.checkpoint.download import cache_path, file_name, shown


def test_download_is_made_once(server, cache, capfd):
    server.files[f'/zoo{NAME}'] = CONTENT
    url = f'{server.url}/zoo{NAME}'
    path = cached_weights(url)
    assert path == cache_path(url) and path.parent == cache and path.read_bytes() == CONTENT
    assert path.name.endswith(f'-model-{DIGITS}.pth')
    assert cached_weights(url) == path and len(server.requests) == 1
    assert '100%' in capfd.readouterr().err  # the progress bar


def test_same_name_elsewhere_is_another_file(server, cache):
    server.files.update({'/a/model.pth': checkpoint_bytes(1), '/b/model.pth': checkpoint_bytes(2)})
    first, second = (cached_weights(f'{server.url}/{folder}/model.pth') for folder in 'ab')
    assert first != second and first.read_bytes() != second.read_bytes()
    assert cached_weights(f'{server.url}/a/model.pth#part') == first and len(server.requests) == 2


def test_one_downloads_and_the_others_wait(server, cache):
    def answer(handler):
        time.sleep(0.5)  # for the other one to come
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.answer = answer
    threads = [threading.Thread(target=cached_weights, args=[server.url + NAME]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1 and downloads(cache) == [cache_path(server.url + NAME).name]


@pytest.mark.parametrize('length', ['x', '-5', ''])
def test_length_that_is_no_number(server, cache, length):
    def answer(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', length)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.answer = answer
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT


def test_error_of_the_disk_is_not_one_of_the_network(server, cache, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    server.files[NAME] = CONTENT
    monkeypatch.setattr(download, 'write_text', full)
    with pytest.raises(OSError, match='No space left') as error:
        cached_weights(server.url + NAME)
    assert not isinstance(error.value, DownloadError)


def test_wrong_content_is_removed(server, cache):
    server.files['/model-00000000.pth'] = CONTENT
    url = f'{server.url}/model-00000000.pth'
    with pytest.raises(CheckpointError, match=f'must have a SHA-256 that starts with 00000000, got {DIGITS}'):
        cached_weights(url)
    assert not list(cache.glob('*.partial*')) and downloads(cache) == []
    assert cached_weights(url, sha256=DIGITS).read_bytes() == CONTENT


@pytest.mark.parametrize('with_length', [True, False])
@pytest.mark.parametrize(
    'content, fault',
    [
        (b'<html>Please log in</html>', 'it is a web page'),
        (checkpoint_bytes()[:-5000], 'cut off or damaged'),
        (b'', 'it is empty'),
    ],
)
def test_what_is_no_checkpoint_does_not_enter_the_cache(server, cache, content, fault, with_length):
    server.files['/model.pth'], server.with_length = content, with_length
    with pytest.raises(CheckpointError, match=fault) as error:
        cached_weights(f'{server.url}/model.pth')
    assert str(error.value).startswith(f'{server.url}/model.pth') and downloads(cache) == []
    server.files['/model.pth'] = checkpoint_bytes()
    assert cached_weights(f'{server.url}/model.pth').read_bytes() == checkpoint_bytes()


@pytest.mark.parametrize('name', [NAME, '/model.pth'], ids=['checksum', 'no checksum'])
def test_file_of_the_cache_that_changed_is_fetched_again(server, cache, name):
    server.files[name] = CONTENT if name == NAME else checkpoint_bytes()
    path = cached_weights(server.url + name)
    for other in (b'something else', checkpoint_bytes(7)):
        path.write_bytes(other)
        assert cached_weights(server.url + name).read_bytes() == server.files[name]
    path.with_name(f'{path.name}.json').write_text('{"sha256": 3}')
    assert cached_weights(server.url + name).read_bytes() == server.files[name] and len(server.requests) == 3
    path.with_name(f'{path.name}.json').unlink()
    path.write_bytes(b'of somebody else')
    assert cached_weights(server.url + name).read_bytes() == server.files[name]


@pytest.mark.parametrize(
    'end',
    [
        '..%2f..%2fevil.pth',
        '%2ftmp%2fx.pth',
        '..%5cevil.pth',
        '%2e%2e',
        '..',
        '.',
        '',
        '.hidden.pth',
        'a.pth.',
        '%20..',
        'a%00.pth',
        'a%0ab.pth',
        'C%3ax.pth',
        'a' * 300,
        'a%2f',
        '%1b[31m.pth',
    ],
)
def test_name_that_is_not_a_plain_one(server, cache, tmp_path, end):
    server.files[f'/zoo/{end}'] = checkpoint_bytes()
    with pytest.raises(ValueError, match='must be a URL that ends with a plain file name'):
        cached_weights(f'{server.url}/zoo/{end}')
    assert server.requests == [] and not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('url', ['file:///etc/hostname', 'ftp://a/b.pth', 'data://a/b.pth', 'http:///b.pth', 'a://[b'])
def test_address_that_is_not_of_the_web(cache, url):
    with pytest.raises(ValueError, match=r'weights must be a (valid )?URL'):
        cached_weights(url)


def test_names_of_real_addresses():
    assert file_name('https://x.org/a/b%20c-1.0.pth?download=1#top') == 'b c-1.0.pth'
    assert shown('https://user:secret@x.org/a.pth') == 'https://x.org/a.pth'


def test_redirects_lead_to_the_web_only(server, cache):
    def answer(handler):
        handler.send_response(302)
        handler.send_header('Location', 'file:///etc/hostname')
        handler.end_headers()

    server.answer = answer
    with pytest.raises(DownloadError, match="'file:///etc/hostname' is not allowed"):
        cached_weights(f'{server.url}/model.pth')


def test_redirects_keep_the_protection():
    request = urllib.request.Request('https://x.org/a.pth')
    with pytest.raises(download._Interrupted, match='which is not fetched'):
        download._Redirects().redirect_request(request, None, 302, '', {}, 'http://x.org/a.pth')


def test_redirects_are_looked_at(server, cache, monkeypatch):
    def answer(handler):
        handler.send_response(302)
        handler.send_header('Location', f'{server.url}/b.pth')
        handler.end_headers()

    def refuse(*args):
        raise download._Interrupted('this is looked at')

    server.answer = answer
    monkeypatch.setattr(download._Redirects, 'redirect_request', refuse)
    with pytest.raises(DownloadError, match='this is looked at'):
        cached_weights(f'{server.url}/a.pth')


def test_redirect_is_followed(server, cache):
    server.files['/b.pth'] = checkpoint_bytes()
    ordinary = server.answer

    def answer(handler):
        handler.send_response(302)
        handler.send_header('Location', f'{server.url}/b.pth')
        handler.end_headers()
        server.answer = ordinary

    server.answer = answer
    assert cached_weights(f'{server.url}/a.pth').read_bytes() == checkpoint_bytes()


def test_file_that_is_larger_than_the_disk(server, cache):
    def answer(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', str(10**17))
        handler.end_headers()

    server.answer = answer
    with pytest.raises(DownloadError, match='do not fit on the disk'):
        cached_weights(f'{server.url}/model.pth')


def test_without_a_network(server, cache):
    url = f'{server.url}/model.pth'
    with pytest.raises(DownloadError, match=r'model\.pth cannot be reached \(Not Found\) and .* is not there'):
        cached_weights(url)
    cache_path(url).write_bytes(checkpoint_bytes())
    assert cached_weights(url).read_bytes() == checkpoint_bytes()  # what is there needs no network
    with pytest.raises(ConnectionError, match='Try again with a network'):
        cached_weights('http://127.0.0.1:9/other.pth')


def test_files(tmp_path):
    path = tmp_path / 'model.pth'
    with pytest.raises(FileNotFoundError, match='weights must be a file that exists or a URL'):
        cached_weights(path)
    path.write_bytes(CONTENT)
    assert cached_weights(path) == cached_weights(str(path)) == path
    with pytest.raises(ValueError, match='sha256 must be 8 to 64 hexadecimal digits'):
        cached_weights('http://127.0.0.1:9/a.pth', sha256='../x')


def test_body_that_does_not_end(server, cache, monkeypatch):
    """A server need not say how much it sends: the disk is not filled, and nothing stays behind."""
    free = iter([download.RESERVE + 3 * download.BLOCK, download.RESERVE + 2 * download.BLOCK, download.RESERVE])
    monkeypatch.setattr(download.shutil, 'disk_usage', lambda path: SimpleNamespace(free=next(free)))

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(5):
            handler.wfile.write(bytes(download.BLOCK))

    server.answer = answer
    with pytest.raises(DownloadError, match=f'it has more than {2 * download.BLOCK} bytes, which do not fit'):
        cached_weights(f'{server.url}/model.pth')
    assert downloads(cache) == []


def test_reason_of_a_server_is_text(server, cache):
    server.answer = lambda handler: handler.send_error(404, '\x1b[2Jgone')
    with pytest.raises(DownloadError, match='cannot be reached \\(\ufffd\\[2Jgone\\)'):
        cached_weights(f'{server.url}/model.pth')
