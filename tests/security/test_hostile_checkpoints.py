"""Checkpoints that are valid and hostile: they do not end the process, fill the memory, or read anything else."""

import http.server
import subprocess
import sys
import threading
import zipfile

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

import lite_detr_mmdet
from lite_detr_mmdet.apis.publish import digest_log, publish_model
from lite_detr_mmdet.checkpoint import CheckpointError, ConfigTextError, load_checkpoint_file, parse_config_text
from lite_detr_mmdet.checkpoint.content import check_weights


def name(path: str) -> bytes:
    """Instructions that push a name."""
    module, _, attribute = path.rpartition('.')
    return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'


def text(value: bytes) -> bytes:
    return b'X' + len(value).to_bytes(4, 'little') + value


def archive(folder, instructions: bytes, *storages: bytes):
    """A file with this pickle, of which every checksum is right."""
    path = folder / 'evil.pth'
    with zipfile.ZipFile(path, 'w') as target:
        target.writestr('archive/data.pkl', b'\x80\x02' + instructions + b'.')
        for key, content in enumerate(storages):
            target.writestr(f'archive/data/{key}', content)
    return path


def tensor(dtype: str, storage: str, numel: int) -> bytes:
    """Instructions that push a tensor of the first storage."""
    identity = b'(' + text(b'storage') + name(storage) + text(b'0') + text(b'cpu') + bytes([ord('K'), numel]) + b'tQ'
    arguments = b'K\0' + bytes([ord('K'), 4]) + b'\x85K\x01\x85\x89N' + name(dtype)
    return name('torch._utils._rebuild_tensor_v3') + b'(' + identity + arguments + b'tR'


# Twelve lists in one another, each ten times: written out, 10**12 values. The last one is memo 28.
LISTS_IN_LISTS = b'](NNNNNNNNNNeq\x100' + b''.join(
    b'](' + bytes([ord('h'), 16 + index]) * 10 + b'e' + bytes([ord('q'), 17 + index]) + b'0' for index in range(12)
)
BOMB = bytes([ord('h'), 28])
HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
DEEP = b')' + b'\x85' * 300_000


@pytest.mark.parametrize(
    'instructions',
    [
        pytest.param(b'}' + DEEP + b'Ns', id='key of a dict'),
        pytest.param(b'\x8f(' + DEEP + b'\x90', id='item of a set'),
        pytest.param(name('builtins.set') + b'](' + DEEP + b'e\x85R', id='call of set'),
        pytest.param(name('collections.Counter') + b'](' + DEEP + b'e\x85R', id='call of Counter'),
        pytest.param(name('collections.OrderedDict') + b'](' + DEEP + b'N\x86e\x85R', id='call of OrderedDict'),
    ],
)
def test_deep_keys_do_not_end_the_process(tmp_path, instructions):
    """Python hashes nested tuples by recursion without a limit: a file of 300 kB ended the interpreter."""
    path = archive(tmp_path, instructions)
    code = 'import sys; from lite_detr_mmdet.checkpoint.unpickler import RestrictedUnpickler as U; import io, zipfile;'
    code += 'from lite_detr_mmdet.checkpoint.symbols import SYMBOLS;'
    code += "data = zipfile.ZipFile(sys.argv[1]).read('archive/data.pkl');"
    code += 'U(io.BytesIO(data), len(data), SYMBOLS, None).load()'
    if instructions.startswith(b'}'):  # once in a process of its own, so that a crash would be seen as one
        result = subprocess.run([sys.executable, '-c', code, str(path)], capture_output=True, text=True)
        assert result.returncode == 1 and 'Fault: it holds a tuple as a key' in result.stderr
    with pytest.raises(CheckpointError, match='it holds a tuple as a key'):
        load_checkpoint_file(path)


@pytest.mark.parametrize(
    'copy',
    [
        pytest.param(name('_codecs.encode') + b'q\0' + text(b'a' * 100_000) + b'q\1' + text(b'latin1'), id='encode'),
        pytest.param(name('pathlib.PosixPath') + b'q\0' + text(b'a' * 100_000) + b'q\1' + text(b'b'), id='path'),
    ],
)
def test_copies_are_counted(tmp_path, copy):
    """A few bytes each asked for one more copy of a long string: 1 MB became 3 GB."""
    calls = b'h\0h\1h\2\x86R' * 50
    path = archive(tmp_path, copy + b'q\x02000](' + calls + b'e')
    with pytest.raises(CheckpointError, match='far more data than the file has bytes'):
        load_checkpoint_file(path)


@pytest.mark.parametrize(
    'call',
    [
        pytest.param(name('numpy.dtype') + BOMB + b'\x85R', id='dtype'),
        pytest.param(name('torch.device') + text(b'cpu') + BOMB + b'\x86R', id='device'),
        pytest.param(
            name('builtins.getattr') + name(HISTORY) + BOMB + b'\x86R', id='getattr'
        ),
    ],
)  # fmt: skip
def test_messages_do_not_write_out_what_the_file_holds(tmp_path, call):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint_file(archive(tmp_path, LISTS_IN_LISTS + call))
    assert len(str(error.value)) < 500


def test_messages_hold_no_escape_sequences(tmp_path):
    """Of the file's contents, and of its name, which may come from an archive."""
    path = tmp_path / 'evil\x1b[2J.pth'
    torch.save(dict(meta=dict(cfg=3), message_hub=[]), path)
    with pytest.raises(CheckpointError, match='evil\ufffd\\[2J\\.pth must hold a table'):
        load_checkpoint_file(path)
    assert '\x1b' not in str(CheckpointError('a.pth', 'holds \x1b[2J'))


@pytest.mark.parametrize('dtype', ['torch.qint8', 'torch.quint4x2', 'torch.bits8', 'torch.complex32'])
def test_types_that_torch_knows_little_of(tmp_path, dtype):
    path = archive(tmp_path, tensor(dtype, 'torch.UntypedStorage', 64), b'\1' * 64)
    with pytest.raises(CheckpointError, match=f'a tensor of {dtype}, which models do not have'):
        load_checkpoint_file(path)


@pytest.mark.parametrize('dtype', [torch.complex64, torch.float8_e4m3fn])
def test_weights_that_no_layer_takes(dtype):
    with pytest.raises(CheckpointError, match=f'holds weights of {dtype}, which no layer takes: w'):
        check_weights('a.pth', dict(w=torch.zeros(2).to(dtype)), 'state_dict', finite=True)
    weights = {'a._extra_state': dict(version=1), 'w': torch.zeros(2)}  # of a module that keeps more than tensors
    assert check_weights('a.pth', weights, 'state_dict', finite=True) is weights


def test_truth_values_are_0_or_1(tmp_path):
    path = archive(tmp_path, tensor('torch.bool', 'torch.BoolStorage', 4), b'\x55' * 4)
    with pytest.raises(CheckpointError, match='truth values other than 0 and 1'):
        load_checkpoint_file(path)


def test_expanded_tensors_together(tmp_path):
    """Each could be 4 MB when copied; the file has 100 bytes for it."""
    content = {str(index): torch.ones(1).expand(1 << 20) for index in range(80)}
    torch.save(dict(state_dict=content), tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='its tensors claim to be far larger than its data'):
        load_checkpoint_file(tmp_path / 'evil.pth')
    content = {str(index): torch.ones(9) for index in range(9)}
    torch.save(
        dict(state_dict={**content, **{f'tied {key}': value for key, value in content.items()}}), tmp_path / 'a'
    )
    assert len(load_checkpoint_file(tmp_path / 'a')['state_dict']) == 18


def test_versions_of_modules_are_plain(tmp_path):
    state_dict = torch.nn.BatchNorm2d(1).state_dict()
    state_dict._metadata[''] = dict(version=[1])
    torch.save(dict(state_dict=state_dict), tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='the versions of its modules are not a table'):
        load_checkpoint_file(tmp_path / 'evil.pth')


@pytest.mark.parametrize('key', ['classes', 'palette'])
def test_names_of_classes_are_not_fetched(checkpoint, tmp_path, key):
    """mmengine takes a text in `metainfo` for a file or a URL: opening a checkpoint read files and asked servers."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    secret = tmp_path / 'secret.txt'
    secret.write_text('password\n')
    content = load_checkpoint_file(checkpoint)
    try:
        for source in (f'http://127.0.0.1:{server.server_port}/x', str(secret)):
            cfg = Config(parse_config_text(content['meta']['cfg']), format_python_code=False)
            cfg.test_dataloader.dataset.metainfo = {key: source}
            meta = dict(cfg=cfg.pretty_text)
            torch.save(dict(meta=meta, state_dict=content['state_dict']), tmp_path / 'evil.pth')
            detector = lite_detr_mmdet.Detector(weights=tmp_path / 'evil.pth', device='cpu', show_progress=False)
            assert 'password' not in str(detector.model.dataset_meta)
    finally:
        server.shutdown()
        server.server_close()
    assert not asked


@pytest.mark.parametrize(
    'config, fault',
    [
        ('a = 0x' + 'f' * 9000, 'holds an integer of more than 64 bits'),
        ('a = [' + '1,' * 200_000 + ']', 'words that a config may have'),
    ],
    ids=['integer', 'words'],
)
def test_configs_that_take_long(config, fault):
    with pytest.raises(ConfigTextError, match=fault):
        parse_config_text(config)


# The first name is a pattern for the second: the braces of the second are replaced by the first, whose quote ends the
# string that it is put into.
CODE = '"*open(' + '+'.join(f'chr({ord(letter)})' for letter in 'ran') + ',chr(119))*"?'
SET_OFF = 'open' + CODE[CODE.index('(') + 1 : CODE.index('*"?')].replace('(', '').replace(')', '').replace('+', '')


def test_class_names_do_not_run_when_the_config_of_a_run_is_read(tmp_path, monkeypatch):
    """A data set names its classes; training writes them into the config of the work dir, which a test then reads."""
    monkeypatch.chdir(tmp_path)
    classes = (
        f'{{{{$X:{CODE}}}}}',
        f"it's{{{{$X:{SET_OFF}}}}}",
        '{{ fileBasename }}',
        '{{_base_.a}}',
        '{{{a',
        '{{$HOME:a}}',
    )
    Config(dict(classes=classes)).dump(tmp_path / 'config.py')
    assert Config.fromfile(tmp_path / 'config.py').classes == classes
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('scheme', ['s3', 'petrel', 'a:s3'])
def test_storage_is_read_as_files_are(tmp_path, monkeypatch, scheme):
    from lite_detr_mmdet.compat import runner_checkpoints

    torch.save(dict(a=1, b=print), tmp_path / 'a.pth')
    backend = type('Backend', (), dict(get=lambda self, name: (tmp_path / 'a.pth').read_bytes()))()
    monkeypatch.setattr(runner_checkpoints, 'get_file_backend', lambda *args, **kwargs: backend)
    with pytest.raises(CheckpointError, match=rf'^{scheme}://bucket/a\.pth is refused'):
        CheckpointLoader.load_checkpoint(f'{scheme}://bucket/a.pth')


def test_pavi_is_refused():
    with pytest.raises(ValueError, match='must be a file or a URL'):
        CheckpointLoader.load_checkpoint('pavi://a')


def test_first_class_of_a_card_is_no_heading(checkpoint, tmp_path):
    content = load_checkpoint_file(checkpoint)
    content['meta']['dataset_meta'] = dict(classes=('# Title', 'http://x.org', '- a'))
    torch.save(content, tmp_path / 'a.pth')
    card = publish_model(tmp_path / 'a.pth', tmp_path / 'zoo', name='small').card.read_text()
    assert '`# Title`, `http: //x.org`, `- a`' in card


@pytest.mark.parametrize('line', ['3', '"loss"', '{"loss": 1, "time": "x"}\n{"loss": 1, "time": 3}', '{', '[' * 9999])
def test_log_of_a_stranger(tmp_path, line):
    (tmp_path / 'scalars.json').write_text(line)
    with pytest.raises(ValueError, match=r'log must be the scalars\.json of a training run, got'):
        digest_log(tmp_path / 'scalars.json')
