"""ONNX files: outputs, metadata, the comparison with the model, refusals."""

import copy
import json

import numpy as np
import pytest
import torch

from lite_detr_mmdet.export import (
    BOUNDS,
    ExportableDetector,
    ImageFormat,
    VerificationError,
    export_onnx,
    pipeline,
    verification,
)
from lite_detr_mmdet.export.compare import Detections, compare_detections
from lite_detr_mmdet.export.onnx_model import to_onnx, without_inspected
from lite_detr_mmdet.export.runners import OnnxRuntimeRunner

for name in ('onnx', 'onnxscript', 'onnxslim', 'onnxruntime'):
    pytest.importorskip(name, reason=f'{name} is not installed: pip install -r requirements/export.txt')

IMAGES = ImageFormat(96, 128)


def test_is_verified_and_tells_of_itself(exported):
    import onnx

    path, report = exported
    assert report.count('detections agree') == 3 and 'exported: ' in report
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ['images']
    assert [value.name for value in model.graph.output] == ['boxes', 'scores', 'labels']
    assert {entry.domain: entry.version for entry in model.opset_import}[''] == 20
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata['preprocessing'])['channels'] == 'RGB' and metadata['config'] == 'small'
    assert str(path.parent) not in str(metadata) and list(path.parent.iterdir()) == [path]


def test_runs_in_onnx_runtime(exported, detector):
    images = torch.randn(1, 3, 96, 128)
    found = OnnxRuntimeRunner(exported[0], threads=1)({'images': images.numpy()})
    with torch.no_grad():
        boxes, scores, labels = ExportableDetector(detector('joint'))(images)
    np.testing.assert_allclose(found['boxes'], boxes, rtol=0, atol=2e-3)
    np.testing.assert_allclose(found['scores'], scores, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found['labels'], labels)


def test_a_file_that_differs_is_not_left(exported, detector, tmp_path, monkeypatch):
    import onnx

    run = OnnxRuntimeRunner.__call__

    def moved(self, inputs):
        outputs = run(self, inputs)
        return {**outputs, 'boxes': outputs['boxes'] + 0.01}

    monkeypatch.setattr(OnnxRuntimeRunner, '__call__', moved)

    def refuse(*args):
        raise VerificationError('the boxes differ')

    # What was exported before, without the outputs that explain a difference.
    monkeypatch.setattr(pipeline, 'to_onnx', lambda *args: onnx.load(exported[0]))
    monkeypatch.setattr(pipeline, 'without_inspected', lambda model: model)
    monkeypatch.setattr(verification, '_explain', refuse)
    with pytest.raises(VerificationError, match='the boxes differ'):
        export_onnx(detector('joint'), tmp_path / 'model.onnx', IMAGES)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(OnnxRuntimeRunner, '__call__', run)
    export_onnx(detector('joint'), tmp_path / 'model.onnx', IMAGES)
    assert (tmp_path / 'model.onnx').is_file()


def test_refusals(detector, tmp_path):
    with pytest.raises(ValueError, match='opset must be from 18 to 23, got 16'):
        export_onnx(detector('joint'), tmp_path / 'model.onnx', IMAGES, opset=16)
    with pytest.raises(FileNotFoundError, match='must be a file in a folder that exists'):
        export_onnx(detector('joint'), tmp_path / 'none' / 'model.onnx', IMAGES)
    with pytest.raises(ValueError, match=r'32x32 has 22 tokens, fewer than the 23 queries .*--shape'):
        model = copy.deepcopy(detector('dino'))
        model.num_queries = 23
        export_onnx(model, tmp_path / 'model.onnx', ImageFormat(32, 32))
    with pytest.raises(ValueError, match=r'at least 65 pixels per side, got 64x128 \(--shape\)'):
        export_onnx(detector('joint'), tmp_path / 'model.onnx', ImageFormat(64, 128, dynamic=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('form', ['grid', 'gather'])
def test_dynamic_with_padding(detector, form, tmp_path):
    images = ImageFormat(96, 128, batch=2, dynamic=True, padding_mask=True)
    report = export_onnx(detector('joint'), tmp_path / 'model.onnx', images, attention=form)
    assert len(report.lines) == 5


@pytest.mark.slow
@pytest.mark.parametrize('half', [False, True])
def test_gather_in_the_reference_evaluator(detector, half):
    """What the ONNX standard says that the nodes do, whatever a runtime makes of them."""
    from onnx.reference import ReferenceEvaluator

    images = torch.randn(1, 3, 64, 96)
    form = ExportableDetector(detector('one_stage'), 'gather', half=half)
    model = without_inspected(to_onnx(form, ImageFormat(64, 96)))
    assert 'GridSample' not in {node.op_type for node in model.graph.node}
    with torch.no_grad():
        expected = Detections(*(output[0].numpy() for output in form(images)))
    bounds = BOUNDS['float16' if half else 'float32']
    for run in (ReferenceEvaluator(model).run, OnnxRuntimeRunner(model.SerializeToString(), 1).session.run):
        found = Detections(*(output[0] for output in run(None, {'images': images.numpy()})))
        difference = compare_detections(expected, found, bounds)
        assert difference.missing == 0 and difference.compared >= 9, difference


@pytest.mark.slow
def test_half_is_verified_though_it_chooses_other_queries(detector, tmp_path):
    """Weights by which float32 tells tokens apart and which float16 rounds to zero, and detections that count."""
    model = copy.deepcopy(detector('joint'))
    with torch.no_grad():
        chooser = model.bbox_head.cls_branches[model.decoder.num_layers]
        chooser.weight.mul_(1e-7)
        chooser.bias.zero_()
        model.bbox_head.cls_branches[model.decoder.num_layers - 1].bias.fill_(1.0)
    assert chooser.weight.abs().max() > 0 and not chooser.weight.half().any()
    report = export_onnx(model, tmp_path / 'model.onnx', ImageFormat(160, 192), half=True)
    assert len(report.lines) == 3
    for line in report.lines:
        assert ' queries were chosen in another order' in line and '(0 with scores above 0.3); ' not in line, line
