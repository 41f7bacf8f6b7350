"""INT8: what is quantised and what stays in float, the metadata, and the tools that make and evaluate a model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Union

import cv2
import numpy as np
import pytest

from lite_detr_mmdet.export.exported import read_metadata
from lite_detr_mmdet.export.quantization import float_nodes, save

from .conftest import CLASSES

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools' / 'deployment'


def run(name: Union[str, Path], *arguments) -> str:
    command = list(map(str, (sys.executable, TOOLS / name, *arguments)))
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two images with the annotations of one object each."""
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (60, 80, 3), np.uint8))
    content = dict(
        images=[dict(id=i, file_name=name, height=60, width=80) for i, name in enumerate(('a.png', 'b.png'))],
        categories=[dict(id=2 * number + 1, name=name) for number, name in enumerate(reversed(CLASSES))],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=3, bbox=[5, 5, 40, 30], area=1200, iscrowd=0) for i in (0, 1)
        ],
    )
    (folder / 'annotations.json').write_text(json.dumps(content))
    return folder


def test_depthwise_convolutions_stay_in_float():
    openvino = pytest.importorskip('openvino')
    from openvino import opset13

    image = opset13.parameter([1, 4, 8, 8], np.float32, name='image')
    options = ([1, 1], [0, 0], [0, 0], [1, 1])
    dense = opset13.convolution(image, np.ones((4, 4, 1, 1), np.float32), *options, name='dense')
    depthwise = opset13.group_convolution(dense, np.ones((4, 1, 1, 1, 1), np.float32), *options, name='depthwise')
    assert float_nodes(openvino.Model([depthwise], [image])) == ['depthwise']


def test_models_are_saved_whole(tmp_path, monkeypatch):
    openvino = pytest.importorskip('openvino')
    from openvino import opset13

    image = opset13.parameter([1], np.float32)
    model = openvino.Model([opset13.add(image, np.ones(1, np.float32))], [image])
    save(model, tmp_path / 'model.xml')
    assert sorted(os.listdir(tmp_path)) == ['model.bin', 'model.xml']
    before = (tmp_path / 'model.xml').read_bytes()

    def fail(model, path, **options) -> None:
        Path(path).write_text('half')
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino, 'save_model', fail)
    with pytest.raises(KeyboardInterrupt):
        save(model, tmp_path / 'model.xml')
    assert sorted(os.listdir(tmp_path)) == ['model.bin', 'model.xml']
    assert (tmp_path / 'model.xml').read_bytes() == before


@pytest.mark.parametrize('name', ['int8.xml', 'int8.bin'])
def test_unusable_outputs_are_refused_before_the_work(tmp_path, error_of_tool, name):
    (tmp_path / name).mkdir()
    (tmp_path / 'model.onnx').touch()
    error = error_of_tool('tools/deployment/quantize_openvino.py', tmp_path / 'model.onnx', '.', tmp_path / 'int8.xml')
    assert error == f"error: must be a file to write, got the folder '{tmp_path / name}'"


@pytest.mark.slow
@pytest.mark.process
def test_quantised_model(exported, images, tmp_path):
    for name in ('nncf', 'openvino'):
        pytest.importorskip(name)
    import openvino

    out = tmp_path / 'int8.xml'
    run('quantize_openvino.py', exported[0], images, out, '--count', '2', '--annotations', images / 'annotations.json')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['int8.bin', 'int8.xml']
    assert read_metadata(out) == read_metadata(exported[0])
    model = openvino.Core().read_model(out)
    quantized = [node for node in model.get_ops() if node.get_type_name() == 'FakeQuantize']
    consumers = {
        target.get_node().get_type_name() for node in quantized for target in node.output(0).get_target_inputs()
    }
    products = [
        target.get_node()
        for node in quantized
        for target in node.output(0).get_target_inputs()
        if target.get_node().get_type_name() == 'MatMul'
    ]
    total = sum(node.get_type_name() == 'MatMul' for node in model.get_ops())
    names = {node.get_friendly_name() for node in products}
    assert 'Convolution' in consumers and not consumers & {'Softmax', 'GridSample', 'TopK', 'Gather'}
    # Two of each feed-forward network of the one encoder layer: that of all tokens and that of the low levels. None of
    # attention, decoder or heads.
    assert len(names) == 4 < total

    for path in (exported[0], out):
        found = json.loads(run('evaluate_exported.py', path, images / 'annotations.json', images, '--threads', '1'))
        assert found['images'] == 2 and 0 <= found['AP'] <= 100 and found['megabytes'] > 0


@pytest.mark.slow
@pytest.mark.process
def test_accuracy_before_and_after(exported, images, tmp_path):
    for name in ('nncf', 'openvino'):
        pytest.importorskip(name)
    annotations, out = images / 'annotations.json', tmp_path / 'record.json'
    options = ('--train', annotations, '--test', annotations, '--images', images, '--count', '1', '--limit', '1')
    run(ROOT / 'benchmarks' / 'int8_accuracy.py', exported[0], *options, '--out', out)
    whole, small = json.loads(out.read_text())['results']
    assert (whole['precision'], small['precision']) == ('float32', 'int8')
    assert whole['images'] == small['images'] == 1 and whole['megabytes'] > small['megabytes'] > 0
