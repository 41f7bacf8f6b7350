"""Unfinished downloads: continued where the rest is sure to be of the same file, else begun anew."""

import contextlib
import json
from pathlib import Path

import pytest
from helpers.downloads import CONTENT, NAME, checkpoint_bytes, downloads, put_partial, ranges

from lite_detr_mmdet.checkpoint import DownloadError, cached_weights, download
from lite_detr_mmdet.checkpoint.download import cache_path, shown


def test_interrupted_download_goes_on(server, cache):
    server.files[NAME], server.limit = CONTENT, 300_000
    with pytest.raises(DownloadError, match='ended after 300000 of 1048576 bytes'):
        cached_weights(server.url + NAME)
    assert [Path(name).suffix for name in downloads(cache)] == ['.partial']
    server.limit = None
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT
    assert ranges(server) == [None, 'bytes=300000-']
    assert not list(cache.glob('*.partial*'))


def test_file_that_changed_in_between_is_fetched_anew(server, cache):
    old, new = checkpoint_bytes(1), checkpoint_bytes(2)
    server.files['/model.pth'], server.tag, server.limit = old, '"one"', 1000
    with pytest.raises(DownloadError):
        cached_weights(f'{server.url}/model.pth')
    server.files['/model.pth'], server.tag, server.limit = new, '"two"', None
    assert cached_weights(f'{server.url}/model.pth').read_bytes() == new
    assert server.requests[-1][1]['If-Range'] == '"one"'


# A weak tag does not promise the same bytes.
@pytest.mark.parametrize('tag, asked', [('"one"', 'bytes=1000-'), ('W/"one"', None)])
def test_file_that_did_not_change_is_continued(server, cache, tag, asked):
    server.files['/model.pth'], server.tag, server.limit = checkpoint_bytes(), tag, 1000
    with pytest.raises(DownloadError):
        cached_weights(f'{server.url}/model.pth')
    server.limit = None
    assert cached_weights(f'{server.url}/model.pth').read_bytes() == checkpoint_bytes()
    assert ranges(server) == [None, asked]


@pytest.mark.parametrize('there', [CONTENT[:1000], CONTENT, CONTENT + b'more', b'x' * 1000], ids=len)
@pytest.mark.parametrize('with_ranges', [True, False])
def test_whatever_part_is_there_the_file_is_right(server, cache, there, with_ranges):
    server.files[NAME], server.ranges = CONTENT, with_ranges
    put_partial(server.url + NAME, there)
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT


@pytest.mark.parametrize('part', [b'', b'x' * 1000, checkpoint_bytes() + b'more', checkpoint_bytes(3)])
def test_part_of_another_file_is_not_continued(server, cache, part):
    # Neither a checksum nor what the server said then vouches for it.
    server.files['/model.pth'] = checkpoint_bytes()
    put_partial(f'{server.url}/model.pth', part)
    assert cached_weights(f'{server.url}/model.pth').read_bytes() == checkpoint_bytes()
    assert ranges(server) == [None]


@pytest.mark.parametrize(
    'span',
    [
        'bytes 0-9/10',
        'bytes 999-1048575/1048576',  # another beginning
        'bytes 1000-1003/1048576',  # another end
        'bytes 1000-99998/99999',  # of another file
        'bytes */1048576',
        'nonsense',
    ],
)
def test_part_that_was_not_asked_for_is_not_used(server, cache, span):
    server.files[NAME], server.content_range = CONTENT, span
    put_partial(server.url + NAME, CONTENT[:1000], validator='"one"', total=len(CONTENT))
    server.tag = '"one"'
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT
    assert ranges(server) == ['bytes=1000-', None]


def test_record_of_another_file_does_not_count(server, cache):
    server.files.update({'/model.pth': checkpoint_bytes(), NAME: CONTENT})
    server.tag = '"one"'
    put_partial(f'{server.url}/model.pth', checkpoint_bytes()[:1000])
    put_partial(server.url + NAME, CONTENT[:1000])
    for name, asked in (('/model.pth', None), (NAME, 'bytes=1000-')):
        record = dict(url=f'{server.url}/other.pth', validator='"one"', total=5)
        path = cache_path(server.url + name)
        path.with_name(f'{path.name}.partial.json').write_text(json.dumps(record))
        cached_weights(server.url + name)
        assert server.requests[-1][1].get('Range') == asked and 'If-Range' not in server.requests[-1][1]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    'record', ['{', '[' * 100_000, '3', '\xff', '{"url": "", "validator": 3}'], ids=lambda text: text[:9]
)
def test_records_that_are_broken(server, cache, record):
    server.files[NAME] = CONTENT
    put_partial(server.url + NAME, CONTENT[:1000])
    path = cache_path(server.url + NAME)
    path.with_name(f'{path.name}.partial.json').write_text(record, encoding='latin-1')
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT and ranges(server) == ['bytes=1000-']


def test_validator_that_is_no_header(server, cache):
    server.files[NAME] = CONTENT
    put_partial(server.url + NAME, CONTENT[:1000], validator='"one"\nX: y')
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT and ranges(server) == ['bytes=1000-']


def test_part_that_is_too_long_is_fetched_anew(server, cache):
    server.files[NAME], server.tag = CONTENT, '"one"'
    put_partial(server.url + NAME, CONTENT + b'more', validator='"one"')
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT
    assert ranges(server) == [f'bytes={len(CONTENT) + 4}-', None]
    server.answer = lambda handler: handler.send_error(416)  # where no part was asked for
    with pytest.raises(DownloadError, match='cannot be reached'):
        cached_weights(f'{server.url}/model.pth')


def test_password_is_not_written_down(server, cache, monkeypatch):
    ordinary = download._open
    monkeypatch.setattr(download, '_open', lambda url, headers: ordinary(shown(url), headers))
    server.files[NAME], server.limit = CONTENT, 1000
    url = server.url.replace('://', '://user:secret@') + NAME
    for _ in range(2):
        with contextlib.suppress(DownloadError):
            cached_weights(url)
        assert all(b'secret' not in path.read_bytes() for path in cache.iterdir()) and list(cache.glob('*.json'))
        server.limit = None
    assert ranges(server) == [None, 'bytes=1000-']


def test_link_in_the_place_of_a_part_is_not_followed(server, cache, tmp_path):
    """In a cache of several users, one could have another one's file overwritten."""
    server.files[NAME] = CONTENT
    victim = tmp_path / 'victim'
    victim.write_bytes(b'mine')
    path = cache_path(server.url + NAME)
    path.parent.mkdir(parents=True)
    path.with_name(f'{path.name}.partial').symlink_to(victim)
    assert cached_weights(server.url + NAME).read_bytes() == CONTENT
    assert victim.read_bytes() == b'mine' and not path.is_symlink()


def test_server_that_sends_parts_only(server, cache):
    def answer(handler):
        handler.send_response(206)
        handler.send_header('Content-Range', 'bytes 0-3/4')
        handler.end_headers()
        handler.wfile.write(b'abcd')

    server.answer = answer
    with pytest.raises(DownloadError, match='a part where the whole was asked for'):
        cached_weights(f'{server.url}/model.pth')
