"""Reading checkpoints: what comes back is what torch would give, and anything else is refused."""

import argparse
import collections
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.checkpoint import CheckpointError, load_checkpoint_file, read_checkpoint
from lite_detr_mmdet.checkpoint.symbols import DtypeShell, history_method

FORMATS = [
    pytest.param({}, id='zip'),
    pytest.param(dict(_use_new_zipfile_serialization=False), id='before 1.6'),
    pytest.param(dict(pickle_protocol=4), id='protocol 4'),
    pytest.param(dict(pickle_protocol=5), id='protocol 5'),
]


def equal(first, second) -> bool:
    """Whether two contents are the same, types included."""
    if isinstance(first, torch.Tensor):
        return (
            isinstance(second, torch.Tensor)
            and first.dtype == second.dtype
            and first.stride() == second.stride()
            and first.requires_grad == second.requires_grad
            and torch.equal(first, second)
        )
    if isinstance(first, dict):
        return (
            type(first) is type(second)
            and list(first) == list(second)
            and all(equal(first[k], second[k]) for k in first)
        )
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and first == second


def weights() -> dict:
    """Tensors of all kinds that models and optimizers hold."""
    whole = torch.randn(4, 6)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    content = {str(kind): torch.arange(5).to(kind) for kind in (*kinds, torch.complex64)}
    content.update(whole=whole, part=whole[1:, ::2], transposed=whole.t(), empty=torch.empty(0, 3))
    content.update(scalar=torch.tensor(2.5), parameter=torch.nn.Parameter(torch.ones(2)))
    content.update(expanded=torch.ones(1, 3).expand(4, 3))
    return content


@pytest.mark.parametrize('options', FORMATS)
def test_what_is_read_is_what_was_saved(tmp_path, options):
    content = dict(
        state_dict=collections.OrderedDict(weights()),
        meta=dict(a=None, b=True, c=-3, d=1 << 60, e=0.1, f='ü', g=(1, (2,)), h=[[], {}], i={1, 2}, j=b'\x00\xff'),
        shape=torch.Size([1, 2]),
        dtype=torch.float32,
        counter=collections.Counter(a=2),
    )
    path = tmp_path / 'a.pth'
    torch.save(content, path, **options)
    loaded = read_checkpoint(path)
    assert equal(loaded, content)
    # Views of one storage are so again: what is changed in one is changed in the other.
    loaded['state_dict']['whole'].fill_(7)
    assert (loaded['state_dict']['part'] == 7).all()


@pytest.mark.parametrize('options', FORMATS)
def test_versions_of_modules_are_kept(tmp_path, options):
    content = torch.nn.BatchNorm2d(3).state_dict()
    torch.save(content, tmp_path / 'a.pth', **options)
    assert read_checkpoint(tmp_path / 'a.pth')._metadata == content._metadata


def runner_checkpoint() -> dict:
    """What mmengine's Runner saves beside the weights without this package."""
    history = HistoryBuffer([0.5, 0.25], [1, 1], max_length=10)
    history.update(np.float64(0.125))
    scalars = dict(step=np.int64(3), loss=np.float64(0.1), flag=np.bool_(True), half=np.float16(2))
    message_hub = dict(log_scalars={'train/loss': history}, runtime_info=scalars, resumed_keys={'train/loss': True})
    arrays = dict(
        ids=np.arange(4), weights=np.asfortranarray(np.ones((2, 3), np.float32)), big=np.arange(3, dtype='>i4')
    )
    return dict(meta=dict(epoch=1, seed=0), state_dict=dict(w=torch.ones(2)), message_hub=message_hub, arrays=arrays)


def save_renamed(content, path, old: str, new: str) -> None:
    """Save with another module's name in the pickle, as another numpy would write it."""
    torch.save(content, path)
    source = torch.serialization.torch.PyTorchFileReader(str(path))
    names = [b'c' + name.encode() + b'.multiarray\n' for name in (old, new)]
    assert names[0] in source.get_record('data.pkl')
    writer = torch.serialization.torch.PyTorchFileWriter(str(path) + '.renamed')
    for name in source.get_all_records():
        record = source.get_record(name)
        if name == 'data.pkl':
            record = record.replace(*names)
        if name not in ('version', 'byteorder', '.format_version', '.storage_alignment', '.data/serialization_id'):
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    os.replace(str(path) + '.renamed', path)


@pytest.mark.parametrize('other_numpy', [False, True], ids=['this numpy', 'the other numpy'])
def test_checkpoint_of_the_runner(tmp_path, other_numpy):
    path, expected = tmp_path / 'epoch_1.pth', runner_checkpoint()
    current = np.empty(0).__reduce__()[0].__module__.rpartition('.')[0]
    if other_numpy:
        save_renamed(expected, path, current, {'numpy._core': 'numpy.core', 'numpy.core': 'numpy._core'}[current])
    else:
        torch.save(expected, path)
    loaded = load_checkpoint_file(path)
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer) and history.mean() == pytest.approx(0.875 / 3)
    assert history.statistics('current') == 0.125
    assert loaded['message_hub']['runtime_info'] == expected['message_hub']['runtime_info']
    assert all(np.array_equal(loaded['arrays'][name], expected['arrays'][name]) for name in expected['arrays'])


def test_arguments_of_training_scripts_become_tables(tmp_path):
    args = argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath('/a/b'), device=torch.device('cuda', 0))
    torch.save(dict(model=dict(w=torch.ones(1)), args=args), tmp_path / 'a.pth')
    loaded = load_checkpoint_file(tmp_path / 'a.pth')
    assert loaded['args'] == dict(lr=0.1, output='/a/b', device='cuda:0')


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class State:
    """Pickles as something with attributes."""

    def __init__(self, target, state):
        self.target, self.state = target, state

    def __reduce__(self):
        return collections.OrderedDict, (), self.state


FORBIDDEN = {
    'os.system': Calls(os.system, 'echo called'),
    'eval': Calls(eval, 'print("called")'),
    'exec': Calls(exec, 'print("called")'),
    'subprocess': Calls(subprocess.Popen, ['echo', 'called']),
    'import': Calls(__import__, 'antigravity'),
    'a class': Calls(getattr, Calls, '__init__'),
    'another method': Calls(getattr, HistoryBuffer, 'register_statistics'),
    'a dunder': Calls(getattr, HistoryBuffer, '__init__'),
    'tofile': Calls(getattr, np.ndarray, 'tofile'),
    'memmap': Calls(np.memmap, '/tmp/called', 'uint8', 'w+', 0, (4,)),
    'nested pickle': Calls(pickle.loads, b'N.'),
    'torch.load': Calls(torch.load, '/tmp/x'),
    'dtype class': np.dtypes.Float64DType,
    'object array': np.array([dict(a=1), None], dtype=object),
    'string array': np.array(['text']),
    'time array': np.array(['2024'], dtype='M8[Y]'),
    'structured array': np.zeros(2, dtype=[('a', 'f8')]),
    'exception': ValueError('a'),
    'range': range(3),
    'attributes': State(None, dict(update=3)),
    'a class of torch': torch.nn.Linear(1, 1),
    'sparse': torch.eye(2).to_sparse(),
    'symbol': torch.Tensor,
}


@pytest.mark.parametrize('options', FORMATS)
@pytest.mark.parametrize('name', FORBIDDEN)
def test_anything_else_is_refused(tmp_path, capfd, name, options):
    torch.save(dict(state_dict={}, extra=FORBIDDEN[name]), tmp_path / 'bad.pth', **options)
    with pytest.raises(CheckpointError, match=r'bad\.pth (is refused|cannot be read as a checkpoint)'):
        read_checkpoint(tmp_path / 'bad.pth')
    assert 'called' not in capfd.readouterr().out


def test_no_method_but_the_four_statistics():
    from lite_detr_mmdet.checkpoint.symbols import SYMBOLS

    owner = SYMBOLS['mmengine.logging.history_buffer.HistoryBuffer']
    assert [history_method(owner, name) for name in ('min', 'max', 'mean', 'current')]
    with pytest.raises(ValueError, match="'update'"):
        history_method(owner, 'update')


def test_type_with_fields_is_refused():
    # A table of fields would let the bytes of an array of numbers be read as pointers to objects.
    with pytest.raises(ValueError, match='whose type is not a number'):
        DtypeShell('f8').build((3, '<', None, ('a',), {'a': (np.dtype(object), 0)}, 8, 1, 27))


def test_torch_itself_allows_no_more_than_before():
    code = 'import torch; before = set(map(str, torch.serialization.get_safe_globals())); import lite_detr_mmdet; '
    code += 'added = set(map(str, torch.serialization.get_safe_globals())) - before; '
    code += 'assert not [name for name in added if "torch." not in name], added'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def nested(depth: int, innermost: object = None) -> object:
    content = innermost
    for _ in range(depth):
        content = [content]
    return content


def cyclic() -> dict:
    content = dict(a=[])
    content['a'].append(content)
    return content


def bomb() -> list:
    content = [0] * 10
    for _ in range(12):
        content = [content] * 10
    return content


@pytest.mark.parametrize(
    'content, fault',
    [
        (dict(meta=nested(200)), 'nested more than 64 deep'),
        (dict(a=(part := nested(40)), b=nested(40, part)), 'nested more than 64 deep'),
        (dict(meta=cyclic()), 'contains itself'),
        (dict(meta=dict(a=bomb())), 'more than 20000000 values'),
        (dict(meta=dict(a=1 << 5000)), 'an integer of'),
        ([torch.ones(1)], 'must hold a dict, got list'),
        ({1: 2}, 'must hold names, got the key 1'),
        ({'a\n\x1b[2J': 2}, r"must hold names, got the key 'a\\n\\x1b\[2J'"),
        (dict(meta=3), "must hold a table as 'meta', got int"),
        (dict(message_hub=[]), "must hold a table as 'message_hub', got list"),
        (dict(meta=dict(cfg=3)), r"must hold a text as meta\['cfg'\], got int"),
        (dict(meta=dict(config=3)), r"must hold a text as meta\['config'\], got int"),
        (dict(meta=dict(dataset_meta=3)), 'must hold a table of names'),
        (dict(meta=dict(dataset_meta={1: 2})), 'must hold a table of names'),
        (dict(meta=dict(dataset_meta=dict(classes='cat'))), 'must hold its classes as a list of names'),
        (dict(meta=dict(CLASSES=(1, 2))), 'must hold its classes as a list of names'),
        (dict(state_dict=None), "must hold weights by name as 'state_dict', got NoneType"),
        (dict(state_dict={1: torch.ones(1)}), 'got the key 1'),
        (dict(state_dict={'a\n\x1b[2J': torch.ones(1)}), r"whose name is not plain text: 'a\\n\\x1b\[2J'"),
        (dict(state_dict=dict(w=3)), "must hold tensors as 'state_dict', got int as w"),
        (dict(model=[]), "must hold weights by name as 'model', got list"),
        (dict(ema_model=[]), "must hold weights by name as 'ema_model', got list"),
        ({'\n' * 9999: 1}, 'must hold names, got the key .{0,190}$'),
        (dict(model={'\n' * 9999: torch.ones(1)}), 'whose name is not plain text: .{0,210}$'),
    ],
)
def test_wrong_content_is_named(tmp_path, content, fault):
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match=fault) as error:
        load_checkpoint_file(tmp_path / 'bad.pth')
    assert str(error.value).startswith(str(tmp_path / 'bad.pth'))


@pytest.mark.parametrize(
    'data, fault',
    [
        (b'', 'it is empty'),
        (b'<!DOCTYPE html>', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1', 'pointer of Git LFS'),
        (b'{"a": 1}', 'is JSON'),
        (b'\x1f\x8b\x08', 'compressed by gzip'),
        (b'not a checkpoint', 'does not begin like a file written by torch.save'),
        (b'PK\x03\x04 broken', 'the table at the end of the archive is missing'),
    ],
)
def test_other_files_are_named(tmp_path, data, fault):
    (tmp_path / 'bad.pth').write_bytes(data)
    with pytest.raises(CheckpointError, match=fault):
        read_checkpoint(tmp_path / 'bad.pth')


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='must be a checkpoint file that exists'):
        read_checkpoint(tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('options', FORMATS[:2])
def test_every_truncation_is_noticed(tmp_path, options):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.randn(300))), path, **options)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_changed_weights_are_noticed(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.zeros(1000)), path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(1000)) + 500] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)


def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / 'a.pth'))
    with pytest.raises(CheckpointError, match=r'a TorchScript program|packed archive'):
        read_checkpoint(tmp_path / 'a.pth')
