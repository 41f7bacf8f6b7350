"""demo/onnx_demo.py and demo/onnx_server.py: pictures in, detections out, with an exported model alone."""

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

DEMO = Path(__file__).resolve().parents[2] / 'demo'
pytestmark = pytest.mark.process


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)


def run(*arguments) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, (DEMO / 'onnx_demo.py', *arguments))], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_folder(exported, picture, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    cv2.imwrite(str(images / 'one.png'), picture)
    output = run(exported[0], images, tmp_path / 'out', '--latency', '--score-thr', '0')
    (found,) = json.loads((tmp_path / 'out' / 'detections.json').read_text()).values()
    assert len(found['boxes']) == len(found['scores']) == 10 and 'p50' in output
    assert cv2.imread(str(tmp_path / 'out' / 'one.png')).shape == (60, 80, 3)


def test_image_and_video_in_openvino(exported, picture, tmp_path):
    pytest.importorskip('openvino')
    cv2.imwrite(str(tmp_path / 'one.png'), picture)
    writer = cv2.VideoWriter(str(tmp_path / 'in.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, (80, 60))
    for shift in range(3):
        writer.write(np.roll(picture, shift, axis=1))
    writer.release()
    options = ('--runtime', 'openvino', '--threads', '1', '--score-thr', '0')
    run(exported[0], tmp_path / 'one.png', tmp_path / 'image', *options)
    assert list(json.loads((tmp_path / 'image' / 'detections.json').read_text())) == ['one.png']
    run(exported[0], tmp_path / 'in.mp4', tmp_path / 'video', *options)
    assert len(json.loads((tmp_path / 'video' / 'detections.json').read_text())) == 3
    video = cv2.VideoCapture(str(tmp_path / 'video' / 'in.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FPS) == 10
    assert video.read()[1].shape == (60, 80, 3)


def test_server(exported, picture):
    command = [sys.executable, DEMO / 'onnx_server.py', exported[0], '--port', '0', '--score-thr', '0']
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(120, process.kill)  # never wait for a server that does not start
        watch.start()
        try:
            address = process.stdout.readline().split()[-1]

            def send(body: bytes) -> dict:
                with urllib.request.urlopen(f'{address}/detect', body, timeout=60) as answer:
                    return json.load(answer)

            found = send(cv2.imencode('.png', picture)[1].tobytes())
            assert len(found['boxes']) == len(found['names']) == 10
            with pytest.raises(urllib.error.HTTPError, match='400'):
                send(b'no image')
            with urllib.request.urlopen(f'{address}/latency', timeout=60) as answer:
                latency = json.load(answer)
            assert latency['count'] == 1 and 0 < latency['p50'] <= latency['p99']
        finally:
            watch.cancel()
            process.terminate()
