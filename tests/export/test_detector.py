"""The form for export predicts what the detector predicts."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from lite_detr_mmdet.export import ExportableDetector
from lite_detr_mmdet.export.levels import shrink_mask
from lite_detr_mmdet.models.detectors import LiteDDQDETR, LiteGroundingDINO
from lite_detr_mmdet.models.layers import KeyAwareDeformableAttention

from .conftest import DETECTORS

SIZE = (128, 160)
SIZES = {'whole': [SIZE, SIZE], 'padded': [SIZE, (100, 131)]}


def predict(model, images, sizes):
    shape = tuple(images.shape[-2:])
    samples = [
        DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=shape, scale_factor=(1.0, 1.0)))
        for size in sizes
    ]
    with torch.no_grad():
        return [sample.pred_instances for sample in model.predict(images, samples, rescale=False)]


def mask_of(sizes, shape):
    mask = torch.ones(len(sizes), *shape, dtype=torch.bool)
    for image, (height, width) in zip(mask, sizes):
        image[:height, :width] = False
    return mask


def assert_equal(expected: InstanceData, boxes, scores, labels, box=1e-3, score=1e-5):
    assert torch.equal(labels, expected.labels)
    torch.testing.assert_close(scores, expected.scores, rtol=0, atol=score)
    torch.testing.assert_close(boxes, expected.bboxes, rtol=0, atol=box)


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('form', ['grid', 'gather', 'op'])
@pytest.mark.parametrize('name', DETECTORS)
def test_predicts_what_the_detector_predicts(detector, name, form, sizes):
    if form == 'op' and (name != 'joint' or not hasattr(torch.ops.lite_detr, 'key_aware_deform_attn')):
        pytest.skip('the operators are not compiled, or another detector stands for this one')
    model = detector(name)
    images = torch.randn(2, 3, *SIZE)
    mask = None if sizes == 'whole' else mask_of(SIZES[sizes], SIZE)
    with torch.no_grad():
        found = ExportableDetector(model, form)(images, mask)
    for expected, *outputs in zip(predict(model, images, SIZES[sizes]), *found):
        assert_equal(expected, *outputs)


@pytest.mark.parametrize('name', ['joint', 'lite_h_detr'])
def test_fewer_tokens_than_queries(detector, name):
    model = copy.deepcopy(detector(name))
    model.num_queries = 20
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        found = ExportableDetector(model)(images)
    for expected, *outputs in zip(predict(model, images, [(24, 24)]), *found):
        assert_equal(expected, *outputs)


def test_normalises_as_the_preprocessor_does(detector):
    model = detector('joint')
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    data = dict(
        inputs=[torch.from_numpy(picture).permute(2, 0, 1)],
        data_samples=[DetDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0)))],
    )
    with torch.no_grad():
        expected = model.test_step(data)[0].pred_instances
        images = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
        found = ExportableDetector(model, normalize=True)(images)
    assert_equal(expected, *(output[0] for output in found))


def test_half_keeps_coordinates(detector):
    model = detector('joint')
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        boxes, scores, labels = ExportableDetector(model, half=True)(images)
    assert boxes.dtype == scores.dtype == torch.float32 and labels.dtype == torch.int64
    expected = predict(model, images, [SIZE])[0]
    assert (scores[0] - expected.scores).abs().max() < 2e-2


def test_leaves_the_detector_alone(detector):
    model = detector('joint')
    before = copy.deepcopy(model.state_dict())
    ExportableDetector(model, half=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(model.decoder.layers) == 2 and model.decoder.return_intermediate
    assert isinstance(model.decoder.layers[0].cross_attn, KeyAwareDeformableAttention)


def test_refuses_with_the_reason(detector):
    with pytest.raises(ValueError, match="attention must be one of 'grid', 'gather', 'op', got 'grids'"):
        ExportableDetector(detector('joint'), 'grids')
    softmax = copy.deepcopy(detector('joint'))
    softmax.bbox_head.loss_cls.use_sigmoid = False
    with pytest.raises(ValueError, match='LiteDINO cannot be exported: its classes have a softmax'):
        ExportableDetector(softmax)
    with pytest.raises(ValueError, match='Linear cannot be exported: it is not of the family of Deformable DETR'):
        ExportableDetector(torch.nn.Linear(1, 1))
    for host, reason in (
        (LiteDDQDETR, 'its queries come from non-maximum suppression'),
        (LiteGroundingDINO, 'it needs a language model'),
    ):
        with pytest.raises(ValueError, match=f'{host.__name__} cannot be exported: {reason}'):
            ExportableDetector(host.__new__(host))  # refused by its class, before anything of it is read


@pytest.mark.parametrize('whole, part', [(100, 13), (90, 12), (801, 26), (131, 17)])
def test_masks_shrink_as_interpolation_shrinks_them(whole, part):
    mask = torch.rand(1, whole, whole) > 0.5
    expected = torch.nn.functional.interpolate(mask[None].float(), size=(part, part))[0].bool()
    assert torch.equal(shrink_mask(mask, part, part), expected)
