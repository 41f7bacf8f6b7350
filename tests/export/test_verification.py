"""What verification accepts and refuses where an exported model chooses other queries."""

import copy

import pytest
import torch

from lite_detr_mmdet.export import ExportableDetector, ImageFormat, VerificationError, verification, verify
from lite_detr_mmdet.export.compare import BOUNDS
from lite_detr_mmdet.export.detector import OUTPUT_NAMES
from lite_detr_mmdet.export.onnx_model import INSPECTED_NAMES
from lite_detr_mmdet.export.verification import make_batches, normalize, predict, rounding_bounds

from .conftest import DETECTORS

IMAGES = ImageFormat(96, 128)


def verify_with(model, choose, moved=0.0) -> list:
    """Lines about a runner that takes the queries that ``choose`` makes of the best tokens and the scores of all."""
    detector = ExportableDetector(model)

    @torch.no_grad()
    def run(inputs):
        images = torch.from_numpy(inputs['images'])
        tokens, scores = detector.detect(images)[4:]
        outputs = [output.numpy() for output in detector.detect(images, tokens=choose(tokens, scores))]
        outputs[0] = outputs[0] + moved
        return dict(zip((*OUTPUT_NAMES, *INSPECTED_NAMES), outputs))

    return verify(model, detector, run, lambda: run, IMAGES).lines


@pytest.fixture
def undecided(detector):
    """All tokens are equally good."""
    model = copy.deepcopy(detector('joint'))
    chooser = model.bbox_head.cls_branches[model.decoder.num_layers]
    for parameter in chooser.parameters():
        parameter.data.zero_()
    return model


def test_another_order_of_equal_tokens_is_explained(undecided):
    lines = verify_with(undecided, lambda tokens, _: tokens.flip(1))
    assert len(lines) == 3
    for line in lines:
        assert '20 queries were chosen in another order' in line
        assert 'with these queries all 10 detections agree' in line


def test_other_boxes_of_the_same_queries_are_refused(undecided):
    with pytest.raises(VerificationError, match=r'with its 20 other queries given, .* 20 differ'):
        verify_with(undecided, lambda tokens, _: tokens.flip(1), moved=0.01)


def test_worse_tokens_are_refused(detector):
    with pytest.raises(VerificationError, match=r'chose tokens whose logits are up to .* worse'):
        verify_with(detector('joint'), lambda tokens, scores: scores.topk(20, largest=False).indices)


def test_sizes_of_a_dynamic_model_are_those_it_takes():
    sizes = [tuple(batch.images.shape) for batch in make_batches(ImageFormat(66, 70, 1, dynamic=True), smallest=65)]
    assert sizes == [(1, 3, 66, 70)] * 3 + [(2, 3, 65, 70), (1, 3, 66, 65)]


@pytest.fixture
def rounding(monkeypatch):
    """Let the model in float64 predict boxes and scores that are moved from those in float32."""

    def move(box, score=0.0):
        def moved(model, batch, images):
            detections = predict(model, batch, images.float() if images.dtype == torch.float64 else images)
            if images.dtype == torch.float64:
                detections = [item._replace(boxes=item.boxes + box, scores=item.scores + score) for item in detections]
            return detections

        monkeypatch.setattr(verification, 'predict', moved)
        monkeypatch.setattr(torch.nn.Module, 'double', lambda self: self)

    return move


@pytest.mark.parametrize(
    'box, score, allowed',
    [
        (0.0, 0.0, (2e-3, 1e-5)),
        (1.5e-3, 2e-5, (3e-3, 4e-5)),
        (0.015, 9e-5, (0.02, 1e-4)),  # ten times the bounds, and no more
        (1.0, 0.0, (2e-3, 1e-5)),  # nothing matches: that is no rounding
    ],
)
def test_bounds_follow_the_rounding_of_the_model(detector, rounding, box, score, allowed):
    rounding(box, score)
    model, batch = detector('joint'), make_batches(IMAGES)[0]
    images = normalize(model, batch)
    found = rounding_bounds(model, batch, images, predict(model, batch, images))
    assert (found.box, found.score) == pytest.approx(allowed, rel=0.05)


def test_differences_of_the_size_of_rounding_are_accepted_and_told(detector, rounding):
    with pytest.raises(VerificationError, match='other queries given'):
        verify_with(detector('joint'), lambda tokens, _: tokens, moved=3e-3)
    rounding(2e-3)
    lines = verify_with(detector('joint'), lambda tokens, _: tokens, moved=3e-3)
    assert len(lines) == 3 and all('allowed 0.004 px' in line and 'float32 rounds that much' in line for line in lines)
    with pytest.raises(VerificationError, match=r'other queries given.*allowed 0.004 px'):
        verify_with(detector('joint'), lambda tokens, _: tokens, moved=5e-3)


@pytest.mark.parametrize('name', DETECTORS)
def test_rounding_of_every_host_is_measured(detector, name):
    model, batch = detector(name), make_batches(IMAGES)[0]
    images = normalize(model, batch)
    expected = predict(model, batch, images)
    assert rounding_bounds(model, batch, images, expected) == BOUNDS['float32']  # small images round little
    assert next(model.parameters()).dtype == torch.float32  # a copy was doubled
