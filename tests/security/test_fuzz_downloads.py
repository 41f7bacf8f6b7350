"""Fuzzing the downloader: whatever a server answers, the cache holds what is right or nothing."""

import email.message
import hashlib
import io
import json
import urllib.error

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError, cached_weights, download, load_checkpoint_file

OPTIONS = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
LENGTHS = [200, pytest.param(4000, marks=pytest.mark.slow)]


def checkpoint_bytes(value: float) -> bytes:
    file = io.BytesIO()
    torch.save(dict(w=torch.full((50,), value)), file)
    return file.getvalue()


WANTED, OTHER = checkpoint_bytes(1), checkpoint_bytes(2)
DIGITS = hashlib.sha256(WANTED).hexdigest()[:12]
bodies = st.one_of(
    st.sampled_from(
        [WANTED, OTHER, b'', b'<html>', WANTED[:-9], WANTED + b'more', WANTED[300:], WANTED[:300], OTHER[300:]]
    ),
    st.binary(max_size=50),
)
numbers = st.sampled_from(['0', '300', str(len(WANTED)), '-1', '9' * 30, 'x', '1e9', str(len(WANTED) - 300)])
spans = st.one_of(
    st.just(f'bytes 300-{len(WANTED) - 1}/{len(WANTED)}'),
    st.builds('bytes {}-{}/{}'.format, numbers, numbers, st.one_of(numbers, st.just('*'))),
    st.text(max_size=9).filter(str.isprintable),
)
tags = st.sampled_from([None, '"one"', '"two"', 'W/"one"', '', 'x'])
answers = st.fixed_dictionaries(
    dict(
        status=st.sampled_from([200, 200, 206, 206, 301, 404, 416, 500, 999]),
        body=bodies,
        length=st.one_of(st.none(), numbers, st.just('right')),
        span=st.one_of(st.none(), spans),
        tag=tags,
        breaks=st.sampled_from([None, None, None, ConnectionResetError('reset'), TimeoutError('slow')]),
    )
)
partials = st.one_of(
    st.none(),
    st.tuples(
        bodies,
        st.one_of(st.none(), st.binary(max_size=9), st.builds(dict, validator=tags, total=st.integers(-1, 9999))),
    ),
)


class Response(io.BytesIO):
    """What urllib's opener would return."""

    def __init__(self, answer: dict) -> None:
        super().__init__(answer['body'])
        self.status, self.breaks = answer['status'], answer['breaks']
        self.headers = email.message.Message()
        length = str(len(answer['body'])) if answer['length'] == 'right' else answer['length']
        for name, value in (('Content-Length', length), ('Content-Range', answer['span']), ('ETag', answer['tag'])):
            if value is not None:
                self.headers[name] = value

    def read(self, size=-1):
        block = super().read(size)
        if not block and self.breaks:
            raise self.breaks
        return block


def settle(number: int):
    return settings(max_examples=number, **OPTIONS)


@pytest.mark.parametrize('number', LENGTHS)
@pytest.mark.parametrize('with_digits', [True, False], ids=['checksum', 'no checksum'])
def test_any_answers(tmp_path, monkeypatch, with_digits, number):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(
        download,
        'tqdm',
        lambda **kwargs: type('Bar', (), dict(update=lambda *_: 0, __enter__=lambda s: s, __exit__=lambda *_: None))(),
    )
    monkeypatch.setattr(download, 'print_log', lambda *args, **kwargs: None)
    name = f'model-{DIGITS}.pth' if with_digits else 'model.pth'
    url = f'http://127.0.0.1:9/{name}'
    path = download.cache_path(url)
    path.parent.mkdir(parents=True)

    @settle(number)
    @given(st.lists(answers, min_size=1, max_size=4), partials)
    def attempt(replies, partial):
        for file in path.parent.iterdir():
            file.unlink()
        if partial is not None:
            path.with_name(f'{path.name}.partial').write_bytes(partial[0])
            record = partial[1]
            if record is not None:
                content = record if isinstance(record, bytes) else json.dumps(dict(url=url, **record)).encode()
                path.with_name(f'{path.name}.partial.json').write_bytes(content)
        queue = list(replies)

        def open_url(_, headers):
            if not queue:
                raise urllib.error.URLError('no route')
            reply = Response(queue.pop(0))
            if reply.status not in (200, 206):
                raise urllib.error.HTTPError(url, reply.status, 'no', reply.headers, reply)
            return reply

        monkeypatch.setattr(download, '_open', open_url)
        try:
            result = cached_weights(url)
        except (CheckpointError, DownloadError) as error:
            assert str(error).startswith(url) and not path.exists()
        else:
            assert result == path
            if with_digits:
                assert path.read_bytes() == WANTED
            load_checkpoint_file(path)
        known = {'', '.json', '.lock', '.partial', '.partial.json'}
        assert {file.name.removeprefix(path.name) for file in path.parent.iterdir()} <= known

    attempt()


@pytest.mark.parametrize('number', [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_addresses(tmp_path, monkeypatch, number):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    pieces = st.sampled_from(
        [
            '..',
            '/',
            '%2f',
            '%2e',
            '%5c',
            '\\',
            'a',
            '.pth',
            '%00',
            '\0',
            '?',
            '#',
            ':',
            '@',
            ' ',
            '%',
            'ü',
            '~',
            '\n',
            '%25',
            '%c0%af',
        ]
    )

    @settle(number)
    @given(
        st.one_of(st.lists(pieces, max_size=12).map(''.join), st.text(max_size=30)),
        st.sampled_from(['http://h/', 'https://h/a/', 'http://', 'x://h/', '//h/']),
    )
    def attempt(end, beginning):
        try:
            path = download.cache_path(beginning + end)
        except ValueError as error:
            assert 'weights must' in str(error)
        else:
            assert path.parent == tmp_path / 'hub' / 'checkpoints' and path.resolve().parent == path.parent.resolve()
            assert path.name.isprintable() and not path.name.startswith('.')

    attempt()
