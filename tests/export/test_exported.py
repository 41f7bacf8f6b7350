"""What exported files say of themselves, and where that contradicts the annotations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lite_detr_mmdet.export.exported import read_metadata

onnx = pytest.importorskip('onnx', reason='onnx is not installed: pip install -r requirements/export.txt')
TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'deployment' / 'evaluate_exported.py'
PREPROCESSING = dict(channels='RGB', mean=[0.0] * 3, std=[1.0] * 3)
METADATA = dict(classes=['a', 'b'], num_classes=2, preprocessing=PREPROCESSING)


def write_model(path: Path, **metadata) -> Path:
    """A file without nodes that has metadata only."""
    model = onnx.helper.make_model(onnx.helper.make_graph([], 'empty', [], []))
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, path)
    return path


def test_metadata(tmp_path):
    pytest.importorskip('openvino')
    path = write_model(tmp_path / 'model.onnx', **METADATA, more=1)
    assert read_metadata(path) == METADATA
    write_model(path, **{**METADATA, 'num_classes': 80})
    with pytest.raises(ValueError, match=r'model.onnx must name each of its classes .* expected 80 names, found 2'):
        read_metadata(path)
    write_model(path, classes=['a'], num_classes=1)
    with pytest.raises(ValueError, match=r'model.onnx has no metadata `preprocessing`'):
        read_metadata(path)


def test_metadata_are_read_without_the_files_that_a_model_names(tmp_path):
    """Weights may lie in other files; a stranger's model may name any."""
    pytest.importorskip('openvino')
    path = write_model(tmp_path / 'model.onnx', **METADATA)
    model = onnx.load(path)
    tensor = model.graph.initializer.add(name='w', data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key='location', value='none.bin')
    path.write_bytes(model.SerializeToString())
    assert read_metadata(path) == METADATA


@pytest.mark.process
def test_other_categories_are_refused(tmp_path):
    pytest.importorskip('openvino')
    model = write_model(tmp_path / 'model.onnx', **METADATA)
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(json.dumps(dict(images=[], annotations=[], categories=[dict(id=7, name='b')])))
    command = [sys.executable, TOOL, model, annotations, tmp_path]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 1
    assert f"error: {annotations} must have the model's 2 classes as categories" in result.stderr
    assert "found 1 categories, none named 'a'" in result.stderr
