"""What verification accepts and refuses where an exported model chooses other queries."""

import copy

import pytest
import torch

from lite_detr_mmdet.export import ExportableDetector, ImageFormat, VerificationError, verify
from lite_detr_mmdet.export.detector import OUTPUT_NAMES
from lite_detr_mmdet.export.onnx_model import INSPECTED_NAMES
from lite_detr_mmdet.export.verification import make_batches

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
