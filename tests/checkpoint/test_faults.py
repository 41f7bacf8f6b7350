"""Every fault of a pickle or an archive is named, by the check that is there for it."""

import io
import struct
import zipfile

import pytest
import torch

from lite_detr_mmdet.checkpoint import CheckpointError, read_checkpoint
from lite_detr_mmdet.checkpoint.errors import Fault, Refusal
from lite_detr_mmdet.checkpoint.symbols import SYMBOLS, Storage
from lite_detr_mmdet.checkpoint.unpickler import RestrictedUnpickler

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
STORAGE, UNTYPED = b'NQ', b'\x89Q'  # what `run` understands as a storage of 16 floats, of 64 bytes
TYPE = b'(K\x03' + b'X\1\0\0\0<' + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t'  # state of a type of numbers


def name(path: str) -> bytes:
    """Instructions that push a name."""
    module, _, attribute = path.rpartition('.')
    return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'


def text(value: str) -> bytes:
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def call(path: str, *arguments: bytes) -> bytes:
    return name(path) + b'(' + b''.join(arguments) + b'tR'


def dtype(kind: str = 'f8', state: bytes = TYPE) -> bytes:
    return call('numpy.dtype', text(kind), b'\x89', b'\x88') + state + b'b'


def array(state: bytes) -> bytes:
    start = call('numpy._core.multiarray._reconstruct', name('numpy.ndarray'), b'K\0\x85', b'C\1b')
    return start + state + b'b'


def history(values: bytes, counts: bytes, length: bytes) -> bytes:
    state = text('_log_history') + values + text('_count_history') + counts + text('max_length') + length
    return name(HISTORY) + b')\x81}(' + state + b'ub'


def numbers(count: int) -> bytes:
    """An array of so many numbers."""
    return array(
        b'(K\1K' + bytes([count]) + b'\x85' + dtype() + b'\x89C' + bytes([8 * count]) + bytes(8 * count) + b't'
    )


def run(program: bytes) -> object:
    storages = {None: torch.float32, False: None}

    def storage(identity: object) -> Storage:
        return Storage(torch.UntypedStorage(64), storages[identity])

    return RestrictedUnpickler(io.BytesIO(program), len(program), SYMBOLS, storage).load()


def tensor(offset: bytes = b'K\0', size: bytes = b'K\4\x85', stride: bytes = b'K\1\x85', hooks: bytes = b'N') -> bytes:
    return call('torch._utils._rebuild_tensor_v2', STORAGE, offset, size, stride, b'\x89', hooks)


def test_what_the_programs_below_are_made_of():
    assert run(tensor() + b'.').shape == (4,) and run(numbers(3) + b'.').shape == (3,)
    assert run(history(numbers(2), numbers(2), b'K\x09') + b'.').data[0].tolist() == [0, 0]
    assert run(dtype('i4') + b'.').itemsize == 4
    for kind in ('OrderedDict', 'Counter'):
        assert run(call(f'collections.{kind}', b'}' + text('abc') + b'K\1s') + b'.') == dict(abc=1)


NO_NUMBER = b'X\1\0\0\0a'
FAULTS = {
    # the instructions
    'long string': (b'X\xff\xff\xff\x7fa.', 'a string is longer than the file'),
    'cut off': (b'(K', 'its pickle is cut off'),
    'no end of a name': (b'cos', 'a name has no end'),
    'no object': (b'a.', 'an object is missing'),
    'no object above a mark': (b'(a.', 'an object is missing'),
    'left over': (b'NN.', 'objects left over'),
    'instruction': (b'\x82a.', 'the instruction .*, which checkpoints do not need'),
    'nothing stored': (b'h\7.', 'an object that is not there'),
    'integer': (b'\x8a\x41' + b'a' * 65 + b'.', 'an integer of 65 bytes'),
    'negative integer': (b'\x8b\xff\xff\xff\xff.', 'an integer of -1 bytes'),
    'number as a name': (b'K\1K\1\x93.', 'a name is not text'),
    'unknown name': (name('os.system') + b'.', r'namely os\.system'),
    'call of a number': (b'K\1)R.', 'a call of int'),
    'call of a class': (name(HISTORY) + b')R.', f'a call of {HISTORY}'),
    'arguments': (name('torch.Size') + b'K\1R.', r'a call of torch\.Size'),
    'number of arguments': (call('_codecs.encode') + b'.', r'its call of _codecs\.encode has the wrong arguments'),
    'attributes': (b']}b.', 'the attributes of a list'),
    'append': (b'}Na.', 'it appends to a dict'),
    'set items': (b']NNs.', 'it sets items of a list'),
    'odd items': (b'}(Nu.', 'it sets items of a dict'),
    'add': (b'](N\x90.', 'it adds to a list'),
    'key': (b'}]Ns.', 'it holds a list as a key'),
    'item of a set': (b'\x8f(]\x90.', 'it holds a list as a key'),
    'large key': (b'}\x8a\x09' + (1 << 64).to_bytes(9, 'little') + b'Ns.', 'an integer of more than 64 bits as a key'),
    'long key': (b'}(' + b'K\1' * 65 + b'tNs.', 'a tuple of 65 values as a key'),
    'versions': (name('collections.OrderedDict') + b')R}' + text('x') + b'Nsb.', 'the versions of its modules'),
    'beginning': (b'Nt.', 'a container has no beginning'),
    # tensors
    'tensor of nothing': (call('torch._utils._rebuild_tensor_v2', *[b'N'] * 6) + b'.', 'a tensor without values'),
    'tensor of bytes': (
        call('torch._utils._rebuild_tensor_v2', UNTYPED, *[b'N'] * 5) + b'.',
        'a tensor without values',
    ),
    'type of a tensor': (call('torch._utils._rebuild_tensor_v3', STORAGE, *[b'N'] * 6) + b'.', 'without values'),
    'rare type': (
        call('torch._utils._rebuild_tensor_v3', STORAGE, *[b'N'] * 5, name('torch.qint8')) + b'.',
        r'a tensor of torch\.qint8, which models do not have',
    ),
    'negative offset': (tensor(b'J\xff\xff\xff\xff') + b'.', 'invalid shape'),
    'size of text': (tensor(size=text('a') + b'\x85') + b'.', 'invalid shape'),
    'no size': (tensor(size=b'N') + b'.', 'invalid shape'),
    'truth as a size': (tensor(size=b'\x88\x85') + b'.', 'invalid shape'),
    'strides': (tensor(stride=b')') + b'.', 'invalid shape'),
    'dimensions': (tensor(size=b'(' + b'K\1' * 33 + b't', stride=b'(' + b'K\1' * 33 + b't') + b'.', 'invalid shape'),
    'beyond the data': (tensor(size=b'K\x11\x85') + b'.', 'larger than its data'),
    'offset beyond the data': (tensor(b'K\x0d') + b'.', 'larger than its data'),
    'expanded': (tensor(size=b'J\1\0\x10\0\x85', stride=b'K\0\x85') + b'.', 'larger than its data'),
    'hooks': (tensor(hooks=b'}NNs') + b'.', 'a tensor with hooks'),
    'parameter': (call('torch._utils._rebuild_parameter', b'K\1', b'\x88', b'N') + b'.', 'a parameter that is not'),
    'hooks of a parameter': (
        call('torch._utils._rebuild_parameter', tensor(), b'\x88', b'}NNs') + b'.',
        'a parameter that is not',
    ),
    'shape': (call('torch.Size', b'J\xff\xff\xff\xff\x85') + b'.', 'an invalid shape'),
    'shape of text': (call('torch.Size', text('ab')) + b'.', 'an invalid shape'),
    'device': (call('torch.device', b'K\1') + b'.', 'a device without a name'),
    'number of a device': (call('torch.device', text('a'), text('b')) + b'.', 'a device without a name'),
    'no device': (call('torch.device') + b'.', 'a device without a name'),
    # text, arrays, histories
    'encoding': (call('_codecs.encode', text('a'), text('rot13')) + b'.', 'bytes in an unknown encoding'),
    'encoded number': (call('_codecs.encode', b'K\1', text('latin1')) + b'.', 'bytes in an unknown encoding'),
    'attribute': (
        call('builtins.getattr', name(HISTORY), text('__init__')) + b'.',
        "it asks for attribute '__init__'",
    ),
    'owner': (call('builtins.getattr', name('numpy.ndarray'), text('min')) + b'.', "it asks for attribute 'min'"),
    'kind of numbers': (dtype('O8') + b'.', "an array of 'O8'"),
    'fields': (dtype(state=TYPE.replace(b'NNN', b'NN}')) + b'.', 'whose type is not a number'),
    'subtype': (dtype(state=TYPE.replace(b'NNN', b'}NN')) + b'.', 'whose type is not a number'),
    'state of a type': (dtype(state=b'N') + b'.', 'whose type is not a number'),
    'byte order': (dtype(state=TYPE.replace(b'<', b'S')) + b'.', 'unknown byte order'),
    'scalar': (call('numpy._core.multiarray.scalar', dtype(), b'C\7aaaaaaa') + b'.', 'an invalid number'),
    'type of a scalar': (call('numpy._core.multiarray.scalar', b'N', b'C\1a') + b'.', 'an invalid number'),
    'state of an array': (array(b'N') + b'.', 'an array without a shape'),
    'type of an array': (array(b'(K\1K\1\x85N\x89C\x01at') + b'.', 'whose type is not a number'),
    'shape of an array': (array(b'(K\1K\1' + dtype() + b'\x89C\x00t') + b'.', 'an array with an invalid shape'),
    'dimensions of an array': (
        array(b'(K\1(' + b'K\0' * 33 + b't' + dtype() + b'\x89C\x00t') + b'.',
        'an array with an invalid shape',
    ),
    'negative side': (array(b'(K\1J\xff\xff\xff\xff\x85' + dtype() + b'\x89C\x00t') + b'.', 'with an invalid shape'),
    'bytes of an array': (array(b'(K\1K\2\x85' + dtype() + b'\x89C\x01at') + b'.', 'does not match its data'),
    'history': (history(b']', b']', b'K\1') + b'.', 'a log history that is not a list of numbers'),
    'lengths of a history': (history(numbers(2), numbers(1), b'K\x09') + b'.', 'a log history that is not'),
    'long history': (history(numbers(2), numbers(2), b'K\1') + b'.', 'a log history that is not'),
    'length of a history': (history(numbers(2), numbers(2), NO_NUMBER) + b'.', 'a log history that is not'),
    'arguments of a command': (name('argparse.Namespace') + b')\x81]b.', 'arguments that are not a table'),
    'path': (call('pathlib.PosixPath', b'K\1') + b'.', 'a path that is not text'),
    'pairs': (call('collections.OrderedDict', b'](K\1e') + b'.', 'an OrderedDict of something else'),
    'triples': (call('collections.OrderedDict', b'](NNN\x87e') + b'.', 'an OrderedDict of something else'),
    'set of text': (call('builtins.set', text('ab')) + b'.', 'a set of something else'),
    'set of a number': (call('builtins.set', b'K\1') + b'.', 'a set of something else'),
    'counted text': (call('collections.Counter', text('ab')) + b'.', 'a Counter of something else'),
    'table of text': (call('collections.OrderedDict', text('ab')) + b'.', 'an? OrderedDict of something else'),
    'set of lists': (call('builtins.set', b'](]e') + b'.', 'it holds a list as a key'),
    'pairs of lists': (call('collections.OrderedDict', b'](]N\x86e') + b'.', 'it holds a list as a key'),
    'long kind of numbers': (dtype('O' * 200) + b'.', "an array of 'O{100}'"),
    'list as a kind of numbers': (call('numpy.dtype', b']', b'\x89', b'\x88') + b'.', 'an array of a list'),
    'counted lists': (call('collections.Counter', b'](]e') + b'.', 'it holds a list as a key'),
}


@pytest.mark.parametrize('case', FAULTS)
def test_faults_of_pickles(case):
    program, fault = FAULTS[case]
    with pytest.raises(Fault, match=fault):
        run(program)


@pytest.mark.parametrize(
    'key, limit',
    [(b'M%b', 20_000), (b'M%bK\1\x86', 1000), (b'G\0\0\0\0%b\0\0', 20_000)],
    ids=['integer', 'tuple', 'number'],
)
@pytest.mark.parametrize('table', ['items', 'one by one', 'set', 'call'])
def test_tables_of_numbers_are_made_in_little_time(key, limit, table):
    """Keys may all have one hash: 12 MB of them took hours. No table of them is large."""

    def program(count: int) -> bytes:
        keys = [key.replace(b'%b', struct.pack('<H', index + 1)) for index in range(count)]
        if table == 'items':
            return b'}(' + b'N'.join([*keys, b'']) + b'u.'
        if table == 'one by one':
            return b'}' + b'Ns'.join([*keys, b'']) + b'.'
        if table == 'set':
            half = count // 2
            return b'\x8f(' + b''.join(keys[:half]) + b'\x90(' + b''.join(keys[half:]) + b'\x90.'
        return name('builtins.set') + b'](' + b''.join(keys) + b'e\x85R.'

    assert len(run(program(limit))) == limit
    with pytest.raises(Fault, match=f'a table of more than {limit} entries with a (int|tuple|float) as a key'):
        run(program(limit + 1))


def test_many_small_calls_are_counted():
    program = b'](' + call('torch.Size', b')') * 40_000 + b'e.'
    run(b'](' + call('torch.Size', b')') * 10 + b'e.')
    with pytest.raises(Fault, match='far more data than the file has bytes'):
        RestrictedUnpickler(io.BytesIO(program), 1000, SYMBOLS, None).load()


def test_states_are_counted():
    """Of objects that are made twice from one large state."""
    rows = b''.join(text(f'{index:05}') + b'N' for index in range(30_000))
    copies = name('argparse.Namespace') + b')\x81h\0b0'
    with pytest.raises(Fault, match='far more data than the file has bytes'):
        run(b'}(' + rows + b'uq\x000' + copies * 200 + b'N.')


IDENTITY = dict(word='storage', kind=name('torch.FloatStorage'), key=text('0'), count=b'K\1')


def identity(**changes) -> bytes:
    parts = {**IDENTITY, **changes}
    return b'(' + text(parts['word']) + parts['kind'] + parts['key'] + text('cpu') + parts['count'] + b'tQ'


def archive(path, program: bytes, *entries) -> None:
    with zipfile.ZipFile(path, 'w') as target:
        for entry, content in [('a/data.pkl', b'\x80\x02' + program + b'.'), ('a/data/0', bytes(8)), *entries]:
            target.writestr(entry, content)


@pytest.mark.parametrize(
    'program, entries, fault',
    [
        (identity(word='file'), (), 'refers to something outside the file'),
        (b'K\1Q', (), 'refers to something outside the file'),
        (identity(kind=b'N'), (), 'refers to data that is not there'),
        (identity(key=b'K\1'), (), 'refers to data that is not there'),
        (identity(count=b'J\xff\xff\xff\xff'), (), 'refers to data that is not there'),
        (identity(key=text('7')), (), "the data of tensor '7' is missing"),
        (identity(count=b'K\3'), (), "the data of tensor '0' is shorter than it claims"),
        (b'N', [('b/data.pkl', b'')], 'an archive of something else'),
        (b'N', [('a/constants.pkl', b'')], 'it is a TorchScript program'),
        (b'N', [('a/byteorder', b'big')], 'on a big-endian machine'),
        (name('torch.float32')[:-1] + b'x\n', (), r'namely torch\.float32x'),
        (name('torch.Size'), (), r'the bare name torch\.Size'),
        (name(HISTORY) + b')\x81', (), 'the bare name HistoryShell'),
        (b'X\1\0\0\0\xff', (), r'it is damaged \(UnicodeDecodeError'),
        (identity(), (), 'it holds a Storage where a value should be'),
        (b']' * 5000 + b'a' * 4999, (), 'its values are nested more than 64 deep'),
    ],
)
def test_faults_of_archives(tmp_path, program, entries, fault):
    archive(tmp_path / 'a.pth', program, *entries)
    with pytest.raises(CheckpointError, match=fault):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_two_files_of_one_name(tmp_path):
    archive(tmp_path / 'a.pth', b'N', ('a/data/0', b'other'))
    with pytest.raises(CheckpointError, match="holds 'a/data/0' twice"):
        read_checkpoint(tmp_path / 'a.pth')


def test_packed_archives(tmp_path):
    """A megabyte of zeros takes a kilobyte."""
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as target:
        target.writestr('a/data.pkl', b'\x80\x02N.')
        target.writestr('a/data/0', bytes(1 << 20))
    with pytest.raises(CheckpointError, match='it is a packed archive'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('place, value', [(8, 1), (20, 3), (24, 3)], ids=['encrypted', 'size', 'size of the contents'])
def test_entries_that_torch_does_not_write(tmp_path, place, value):
    path = tmp_path / 'a.pth'
    archive(path, b'N')
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + place] = value
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='it is a packed archive'):
        read_checkpoint(path)


@pytest.mark.parametrize('offset', [1 << 30, (1 << 32) - 2])
def test_parts_outside_of_the_file(tmp_path, offset):
    path = tmp_path / 'a.pth'
    archive(path, b'N')
    data = bytearray(path.read_bytes())
    place = data.index(b'PK\x01\x02')
    data[place + 42 : place + 46] = struct.pack('<I', offset)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='its table points outside of it'):
        read_checkpoint(path)


def test_overlapping_parts(tmp_path):
    """Many entries of the table may point to the same bytes."""
    path = tmp_path / 'a.pth'
    archive(path, b'N', *((f'a/data/{index}', bytes(1)) for index in range(1, 9)))
    data = bytearray(path.read_bytes())
    place = data.index(b'PK\x01\x02')
    while place >= 0:  # sizes in the table
        data[place + 20 : place + 28] = struct.pack('<II', 500, 500)
        place = data.find(b'PK\x01\x02', place + 1)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match='its parts claim to be larger than the file'):
        read_checkpoint(path)


def long(value: int, count: int) -> bytes:
    return b'\x80\x02\x8a' + bytes([count]) + value.to_bytes(count, 'little') + b'.'


def legacy(magic=0x1950A86A20F9469CFC6C, version=1001, system=True, program=b'N', keys=b']', data=b'') -> bytes:
    """A file in the format before torch 1.6."""
    table = b'}' + text('little_endian') + (b'\x88' if system else b'\x89') + b's.'
    parts = (long(version, 2), b'\x80\x02' + table, b'\x80\x02' + program + b'.', b'\x80\x02' + keys + b'.', data)
    return long(magic, 10) + b''.join(parts)


OLD = dict(keys=b'](' + text('0') + b'e', data=struct.pack('<q', 1) + bytes(4))


def old_identity(view: bytes = b'N', **changes) -> bytes:
    return identity(**changes)[:-2] + view + b'tQ'


def old_tensor(*args, **kwargs) -> bytes:
    shape = (b'K\0', b'K\1\x85', b'K\1\x85', b'\x89', b'N')
    return call('torch._utils._rebuild_tensor_v2', old_identity(*args, **kwargs), *shape)


@pytest.mark.parametrize(
    'data, fault',
    [
        (legacy(magic=1 << 76), 'does not begin like a file written by torch.save'),
        (legacy(version=7), 'does not begin like a file written by torch.save'),
        (legacy(system=False), 'on a big-endian machine'),
        (legacy(program=old_tensor(view=text('v')), **OLD), 'views of storages'),
        (legacy(program=old_tensor(kind=name('torch.UntypedStorage')), **OLD), 'views of storages'),
        (legacy(program=old_tensor(count=b'J\xff\xff\xff\x7f'), **OLD), 'its data claims to be larger than the file'),
        (legacy(program=old_tensor()), 'its list of data does not match its tensors'),
        (legacy(program=old_tensor(), keys=b'](K\1e'), 'its list of data does not match its tensors'),
        (legacy(program=old_tensor(), keys=b'K\1'), 'its list of data does not match its tensors'),
        (legacy(program=old_tensor(), **{**OLD, 'data': struct.pack('<q', 2) + bytes(8)}), 'has a different length'),
        (legacy(program=old_tensor(), **{**OLD, 'data': struct.pack('<q', 1) + bytes(3)}), 'it is cut off'),
        (legacy(program=old_tensor(), **{**OLD, 'data': b'abc'}), r'it is damaged \(unpack requires'),
        (long(0x1950A86A20F9469CFC6C, 10) + b'\x80\x02K\1Q.', 'refers to data before there is any'),
    ],
)
def test_faults_of_old_files(tmp_path, data, fault):
    path = tmp_path / 'a.pth'
    path.write_bytes(legacy(program=old_tensor(), **OLD))
    assert read_checkpoint(path).tolist() == [0]
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=fault):
        read_checkpoint(path)


def test_refusals_say_what_to_do(tmp_path):
    assert issubclass(Refusal, Fault)
    archive(tmp_path / 'a.pth', name('os.system'))
    with pytest.raises(
        CheckpointError, match=r'is refused: .*os\.system, and loading that could run code from the file'
    ):
        read_checkpoint(tmp_path / 'a.pth')
