"""Fuzzing the checkpoint reader: whatever the bytes, it returns plain values or raises its one error."""

import collections
import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

from lite_detr_mmdet.checkpoint import CheckpointError, load_checkpoint_file, read_checkpoint
from lite_detr_mmdet.checkpoint.content import CONTAINERS, LEAVES
from lite_detr_mmdet.checkpoint.symbols import SYMBOLS
from lite_detr_mmdet.checkpoint.unpickler import INSTRUCTIONS

OPTIONS = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
QUICK, LONG = settings(max_examples=150, **OPTIONS), settings(max_examples=3000, **OPTIONS)


def sample() -> dict:
    """A small checkpoint with one of everything."""
    hub = dict(
        log_scalars=dict(loss=HistoryBuffer([0.5], [1], 9)),
        runtime_info=dict(a=np.float64(1), b=np.arange(3)),
        resumed_keys={},
    )
    state_dict = collections.OrderedDict(torch.nn.BatchNorm2d(2).state_dict(), p=torch.nn.Parameter(torch.ones(2)))
    meta = dict(epoch=1, iter=2, seed=None, cfg='a = 1', dataset_meta=dict(classes=('a', 'b')))
    return dict(meta=meta, state_dict=state_dict, message_hub=hub, shape=torch.Size([2]), dtype=torch.float16)


def saved(**options) -> bytes:
    file = io.BytesIO()
    torch.save(sample(), file, **options)
    return file.getvalue()


def archive(data: bytes, storages) -> bytes:
    """A file with another pickle, of which every checksum is right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as target:
        target.writestr('archive/data.pkl', data)
        target.writestr('archive/byteorder', 'little')
        for key, content in enumerate(storages):
            target.writestr(f'archive/data/{key}', content)
    return file.getvalue()


def parts() -> tuple:
    with zipfile.ZipFile(io.BytesIO(saved())) as source:
        names = [name for name in source.namelist() if '/data/' in name]
        return source.read('archive/data.pkl'), [
            source.read(name) for name in sorted(names, key=lambda n: int(n.split('/')[-1]))
        ]


FILES = [saved(), saved(_use_new_zipfile_serialization=False), saved(pickle_protocol=4)]
PICKLE, STORAGES = parts()


def check(data: bytes, folder) -> None:
    """Read the bytes in all ways; only one kind of error may come."""
    path = folder / 'fuzz.pth'
    path.write_bytes(data)
    for read in (read_checkpoint, load_checkpoint_file):
        try:
            content = read(path)
        except CheckpointError as error:
            assert str(error).startswith(str(path)) and len(error.fault) > 5
        else:
            assert isinstance(content, (*LEAVES, *CONTAINERS))
            repr(content) if not isinstance(content, torch.Tensor) else content.sum()


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """The bytes with a few of them changed, removed, repeated or put in."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        position = draw(st.integers(0, max(len(result) - 1, 0)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64]))
        kind = draw(st.sampled_from(['set', 'set', 'set', 'delete', 'repeat', 'insert', 'cut']))
        if kind == 'set':
            result[position : position + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == 'delete':
            del result[position : position + length]
        elif kind == 'repeat':
            result[position:position] = result[position : position + length]
        elif kind == 'insert':
            result[position:position] = draw(st.binary(min_size=1, max_size=length))
        elif draw(st.integers(0, 9)) == 0:
            del result[position:]
    return bytes(result)


NAMES = sorted(SYMBOLS) + [
    'os.system',
    'builtins.eval',
    'builtins.exec',
    'torch.load',
    'numpy.memmap',
    'builtins.object',
]


@st.composite
def pickles(draw) -> bytes:
    """A random program for the unpickler, with operands that fit its instructions more often than not."""
    program = [b'\x80\x02']
    for _ in range(draw(st.integers(1, 40))):
        code = draw(st.sampled_from(sorted(INSTRUCTIONS)))
        number = draw(st.sampled_from([0, 1, 2, 5, 200]))
        if code == b'c':
            module, _, name = draw(st.sampled_from(NAMES)).rpartition('.')
            program.append(b'c' + module.encode() + b'\n' + name.encode() + b'\n')
        elif code in (b'X', b'B', b'T', b'r', b'j', b'J', b'\x8b'):
            program.append(code + number.to_bytes(4, 'little') + b'storage!'[: number if code in b'XBT' else 0])
        elif code in (b'\x8d', b'\x8e', b'\x96', b'\x95', b'G'):
            program.append(code + number.to_bytes(8, 'little') + b'storage!'[: number if code != b'G' else 0])
        elif code in (b'K', b'q', b'h', b'\x8a', b'\x8c', b'C', b'U', b'\x80'):
            program.append(code + bytes([number]) + b'storage!'[: number if code in b'\x8a\x8cCU' else 0])
        elif code == b'M':
            program.append(code + number.to_bytes(2, 'little'))
        else:
            program.append(code)
    return b''.join(program) + draw(st.sampled_from([b'.', b'']))


contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
    | st.sampled_from([torch.ones(2), torch.empty(0), np.ones(2), np.float32(1), torch.float32, HistoryBuffer()]),
    lambda items: st.lists(items, max_size=3)
    | st.dictionaries(
        st.sampled_from(['meta', 'state_dict', 'message_hub', 'cfg', 'dataset_meta', 'classes', 'model', 1, None]),
        items,
        max_size=4,
    )
    | st.lists(items, max_size=2).map(tuple),
    max_leaves=12,
)  # fmt: skip


def run(number: int, strategy, folder, make=lambda data: data) -> None:
    @(LONG if number > 1000 else QUICK)
    @given(strategy)
    def attempt(data):
        check(make(data), folder)

    attempt()


LENGTHS = [150, pytest.param(3000, marks=pytest.mark.slow)]


@pytest.mark.parametrize('number', LENGTHS)
@pytest.mark.parametrize('kind', range(len(FILES)), ids=['zip', 'before 1.6', 'protocol 4'])
def test_changed_files(tmp_path, kind, number):
    run(number, mutated(FILES[kind]), tmp_path)


@pytest.mark.parametrize('number', LENGTHS)
def test_changed_pickles_with_right_checksums(tmp_path, number):
    run(number, mutated(PICKLE), tmp_path, lambda data: archive(data, STORAGES))


@pytest.mark.parametrize('number', LENGTHS)
def test_random_programs(tmp_path, number):
    run(number, pickles(), tmp_path, lambda data: archive(data, STORAGES))


@pytest.mark.parametrize('number', LENGTHS)
def test_contents_in_the_wrong_places(tmp_path, number):
    def make(content) -> bytes:
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()

    run(number, contents, tmp_path, make)


@pytest.mark.parametrize('number', LENGTHS)
def test_any_bytes(tmp_path, number):
    beginnings = st.sampled_from([b'', b'PK\x03\x04', b'\x80\x02\x8a\x0a', b'<html', FILES[1][:60]])
    run(number, st.tuples(beginnings, st.binary(max_size=200)), tmp_path, b''.join)
