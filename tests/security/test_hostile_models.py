"""Exported models of strangers, and clients of the server: clear errors, no endless memory, an answer for everyone."""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib

import cv2
import numpy as np
import pytest
from helpers.tools import ROOT

from lite_detr_mmdet.export.compare import Detections
from lite_detr_mmdet.export.exported import coco_results, find_fault, prepare, read_metadata

GOOD = dict(channels='RGB', mean=[0, 0, 0], std=[1, 1, 1], scale=[64, 48], keep_ratio=True)
SHAPE = [1, 3, 'height', 'width']


@pytest.fixture
def demo(monkeypatch):
    """demo/onnx_demo.py as a module; it stands alone and is no package."""
    monkeypatch.syspath_prepend(str(ROOT / 'demo'))
    import onnx_demo

    return onnx_demo


CLASSES = ['3', 'null', '"abc"', '{"0": "a"}', '[[1]]', '[1]', '{', '[' * 100_000]
CHANGES = [
    dict(channels=3),
    dict(channels=['RGB']),
    dict(mean='x'),
    dict(mean=[1]),
    dict(mean=[float('inf'), 0, 0]),
    dict(mean=[[0] * 1000] * 1000),
    dict(std=[0, 0, 0]),
    dict(std=[float('nan'), 1, 1]),
    dict(std=['1', '1', '1']),
    dict(std=[True, True, True]),
]
SCALES = [3, [1, 2, 3], ['a', 'b'], [0, 0], [-1, -5], [100_000, 100_000], [float('inf'), 1]]


def metadata(classes='["a", "b"]', **changes) -> dict:
    return dict(classes=classes, preprocessing=json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize('classes', CLASSES, ids=lambda text: text[:9])
def test_classes_of_a_stranger(demo, classes):
    with pytest.raises((ValueError, RecursionError)):
        demo.check_metadata(metadata(classes), SHAPE)
    if len(classes) > 1 and '[[[' not in classes:
        assert find_fault(json.loads(classes), GOOD) == 'classes must be a list of names'


@pytest.mark.parametrize('changes', CHANGES, ids=lambda changes: str(changes)[:30])
def test_preprocessing_of_a_stranger(demo, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f'{name} (must|RGB)'):
        demo.check_metadata(metadata(**changes), SHAPE)
    assert name in find_fault(['a'], {**GOOD, **changes})


@pytest.mark.parametrize('value', [None, 3, [], 'channels'], ids=str)
def test_preprocessing_that_is_no_table(demo, value):
    with pytest.raises(ValueError, match='preprocessing must have the channels'):
        demo.check_metadata(dict(classes='["a"]', preprocessing=json.dumps(value)), SHAPE)
    assert find_fault(['a'], value) == 'preprocessing must have the channels RGB or BGR'


@pytest.mark.parametrize('scale', SCALES, ids=str)
def test_sizes_that_do_not_fit_the_memory(demo, scale):
    with pytest.raises(ValueError, match='scale must be two numbers up to 8192'):
        demo.check_metadata(metadata(scale=scale), SHAPE)
    assert demo.check_metadata(metadata(), SHAPE) == (GOOD, ['a', 'b'])
    assert demo.check_metadata(metadata(scale=[]), [1, 3, 800, 1333])[1] == ['a', 'b']


@pytest.mark.parametrize('shape', [[1, 3, 100_000, 100_000], [1, 3, 0, 0], [3], [1, 3, 8, 8, 8]], ids=str)
def test_inputs_of_any_size(demo, shape):
    with pytest.raises(ValueError, match='the input must be'):
        demo.check_metadata(metadata(), shape)
    with pytest.raises(ValueError, match='must take images of a fixed size up to 8192 pixels'):
        prepare(np.zeros((4, 4, 3), np.uint8), tuple(shape[2:]), GOOD)


def write_model(path, classes: str):
    """A model of ONNX with these classes that returns one box; nothing of it is trained."""
    onnx = pytest.importorskip('onnx', reason='onnx is not installed: pip install -r requirements/export.txt')
    make, types = onnx.helper, onnx.TensorProto
    values = dict(boxes=np.ones((1, 1, 4), np.float32), scores=np.ones((1, 1), np.float32), labels=np.array([[0]]))
    kinds = dict(boxes=types.FLOAT, scores=types.FLOAT, labels=types.INT64)
    graph = make.make_graph(
        [make.make_node('Constant', [], [name], value=onnx.numpy_helper.from_array(a)) for name, a in values.items()],
        'model',
        [make.make_tensor_value_info('images', types.FLOAT, SHAPE)],
        [make.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid('', 17)], ir_version=8)
    onnx.helper.set_model_props(model, dict(classes=classes, num_classes='1', preprocessing=json.dumps(GOOD)))
    path.write_bytes(model.SerializeToString())


def test_errors_name_the_file(demo, tmp_path):
    from argparse import Namespace

    onnx = pytest.importorskip('onnx', reason='onnx is not installed: pip install -r requirements/export.txt')
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed: pip install -r requirements/export.txt')
    path = tmp_path / 'evil.onnx'
    args = Namespace(model=path, runtime='onnxruntime', threads=1, library='')
    write_model(path, '["a"]')
    model, preprocessing, classes = demo.load_model(args)
    assert (
        read_metadata(path)
        == dict(classes=classes, num_classes=1, preprocessing=preprocessing)
        == dict(classes=['a'], num_classes=1, preprocessing=GOOD)
    )
    assert len(demo.detect(model, np.zeros((4, 4, 3), np.uint8), preprocessing)[0]) == 1
    for text in CLASSES:
        write_model(path, text)
        with pytest.raises(SystemExit, match=r'error: .*evil\.onnx must come from export_onnx\.py'):
            demo.load_model(args)
        with pytest.raises(ValueError, match=r'evil\.onnx must'):
            read_metadata(path)
    model = onnx.load(path)
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SystemExit, match=r'error: .*evil\.onnx must come from export_onnx\.py'):
        demo.load_model(args)


class Model:
    """Stands for a model: returns what it is told, for any image."""

    shape = SHAPE

    def __init__(self, boxes, scores, labels) -> None:
        self.outputs = [np.array([values]) for values in (boxes, scores, labels)]

    def __call__(self, images: np.ndarray) -> list:
        return self.outputs


INFINITE = float('inf')
BOXES = [[1, 1, 9, 9], [float('nan'), 0, 1, 1], [0, 0, INFINITE, 1], [-1e30, 0, 1e30, 1]]


def test_any_outputs_are_drawn(demo):
    image = np.zeros((30, 40, 3), np.uint8)
    model = Model(BOXES, [0.9, 0.9, 0.9, 0.9], [-5, 0, 0, 10**12])
    found = demo.detect(model, image, GOOD)
    assert found[2].tolist() == [-5, 10**12]  # boxes that are not finite are gone
    assert demo.draw(image, found, ['a', 'b'], 0.3).any()
    assert [demo.name_of(label, ['a', 'b']) for label in (0, 1, 2, -1)] == ['a', 'b', '2', '-1']
    found = demo.detect(Model(BOXES[:1], [float('nan')], [0]), image, GOOD)
    assert not demo.draw(image, found, ['a'], 0.3).any()
    for outputs in (([[1, 2]], [0.9], [0]), (BOXES, [0.9], [0]), (BOXES[:1], [0.9], [0, 1])):
        with pytest.raises(ValueError, match=r'the model must return boxes \(n, 4\)'):
            demo.detect(Model(*outputs), image, GOOD)


@pytest.mark.parametrize('label', [-100, -1, 2])
def test_labels_that_are_no_class(label):
    detections = Detections(np.ones((1, 4)), np.ones(1), np.array([label]))
    with pytest.raises(ValueError, match='must be from 0 to 1, one for each class'):
        coco_results(1, detections, [7, 8])


@pytest.fixture
def server(demo):
    """The server with a model that refuses images of one colour."""
    import onnx_server

    class Picky(Model):
        def __call__(self, images: np.ndarray) -> list:
            if images.std() == 0:
                raise RuntimeError('nothing to see')
            return self.outputs

    with onnx_server.Server(('127.0.0.1', 0), Picky(BOXES, [0.9] * 4, [-5, 0, 0, 1]), GOOD, ['a', 'b'], 0.3) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def ask(server, body: bytes) -> tuple:
    url = f'http://127.0.0.1:{server.server_port}/detect'
    try:
        with urllib.request.urlopen(url, body, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def picture(*shape, value=None) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8) if value is None else np.full(shape, value)
    return cv2.imencode('.png', image.astype(np.uint8))[1].tobytes()


def test_every_client_gets_an_answer(server):
    status, found = ask(server, picture(30, 40, 3))
    assert status == 200 and found['names'] == ['-5', 'b'] and np.isfinite(found['boxes']).all()
    assert ask(server, picture(1, 20_000, 3))[0] == 200  # its height becomes less than a pixel
    status, answer = ask(server, picture(30, 40, 3, value=0))
    assert status == 422 and answer['error'] == 'the model cannot take an image of 40x30 pixels: nothing to see'
    assert ask(server, b'no image')[0] == 400


def test_slow_clients_keep_nobody_waiting(server):
    with socket.create_connection(('127.0.0.1', server.server_port)) as slow:
        slow.sendall(b'POST /detect HTTP/1.0\r\nContent-Length: 1000\r\n\r\nabc')
        assert ask(server, picture(30, 40, 3))[0] == 200


def test_one_image_at_a_time(server):
    active, most = [], []

    def model(images):
        active.append(1)
        most.append(len(active))
        time.sleep(0.1)  # for the others to come
        active.pop()
        return [np.array([values]) for values in (BOXES[:1], [0.9], [0])]

    model.shape = SHAPE
    server.model = model
    threads = [threading.Thread(target=ask, args=[server, picture(30, 40, 3)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4 and len(server.seconds) == 4 and server.seconds.maxlen is not None


def test_only_this_machine_is_served(demo, monkeypatch):
    import onnx_server

    asked = []

    def refuse(address, *args):
        asked.append(address)
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_server, 'load_model', lambda args: (Model(BOXES[:1], [0.9], [0]), GOOD, ['a']))
    monkeypatch.setattr(onnx_server, 'Server', refuse)
    monkeypatch.setattr(sys, 'argv', ['onnx_server.py', 'model.onnx'])
    with pytest.raises(KeyboardInterrupt):
        onnx_server.main()
    assert asked == [('127.0.0.1', 8000)]


def test_clients_that_send_nothing_are_left(server, monkeypatch):
    handler = server.RequestHandlerClass
    assert 1 <= handler.timeout <= 60
    monkeypatch.setattr(handler, 'timeout', 0.2)
    with socket.create_connection(('127.0.0.1', server.server_port), timeout=20) as client:
        client.sendall(b'POST /detect HTTP/1.0\r\nContent-Length: 1000\r\n\r\nabc')
        assert client.recv(100) == b''


def test_clients_that_go_away_are_no_fault(server, capfd):
    done = threading.Event()
    server.shutdown_request = lambda request: (type(server).shutdown_request(server, request), done.set())
    with socket.create_connection(('127.0.0.1', server.server_port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))  # closing resets
        client.sendall(b'POST /detect HTTP/1.0\r\nContent-Length: 1000\r\n\r\nabc')
    assert done.wait(20) and capfd.readouterr().err == ''
    server.detect = lambda content: 1 / 0
    with pytest.raises(ConnectionError):
        ask(server, b'an image')
    assert 'ZeroDivisionError' in capfd.readouterr().err


def png(side: int) -> bytes:
    """A black image that takes a thousandth of its size."""
    rows = zlib.compress(bytes((side + 1) * side))
    chunks = ((b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)), (b'IDAT', rows), (b'IEND', b''))
    parts = [
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def test_images_that_unpack_to_more_than_the_memory_are_not_decoded(tmp_path):
    """In a process of its own: OpenCV reads its limit once."""
    code = f'import sys; sys.path.insert(0, {str(ROOT / "demo")!r}); import onnx_server, types\n'
    code += 'made = types.SimpleNamespace(model=None, preprocessing=None)\n'
    code += 'print([onnx_server.Server.detect(made, open(path, "rb").read())[0] for path in sys.argv[1:]])'
    for side in (64, 8200):
        (tmp_path / f'{side}.png').write_bytes(png(side))
    command = [sys.executable, '-c', code, str(tmp_path / '64.png'), str(tmp_path / '8200.png')]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == '[422, 400]\n', result.stderr  # the first one is decoded, and there is no model


@pytest.mark.parametrize('length', ['-1', '0', str(1 << 40), 'x', ''])
def test_bodies_of_any_length(server, length):
    with socket.create_connection(('127.0.0.1', server.server_port), timeout=20) as client:
        client.sendall(f'POST /detect HTTP/1.0\r\nContent-Length: {length}\r\n\r\n'.encode())
        assert client.recv(100).startswith(b'HTTP/1.0 413 ')
