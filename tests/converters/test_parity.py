"""Converted weights give the outputs of the authors' code."""

import numpy as np
import pytest
import torch
from helpers.official_weights import golden_outputs, golden_shapes, make_images, make_weights
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.converters.class_rows import COCO_CATEGORY_IDS
from lite_detr_mmdet.converters.matching_config import check_weights_fit, find_matching_config
from lite_detr_mmdet.converters.model_options import model_options
from lite_detr_mmdet.converters.official import official_to_mmdet

MODELS_OF_GOLDEN = {
    'official_lite_dino_h3l1_2p1x3_r50': dict(num_high_levels=3),
    'official_h_detr_r50': dict(num_queries=100),
}
CONFIGS = {
    'official_lite_dino_h3l1_2p1x3_r50': 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'official_h_detr_r50': 'lite_detr_mmdet::h_detr/h-detr_',
}


def pad(images: list) -> tuple:
    """Images as the model gets them: padded with zeros at the right and below, with their own sizes."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width)
    samples = []
    for index, image in enumerate(images):
        batch[index, :, : image.shape[1], : image.shape[2]] = image
        shape = tuple(image.shape[1:])
        samples.append(DetDataSample(metainfo=dict(batch_input_shape=(height, width), img_shape=shape)))
    return batch, samples


def raw_outputs(model, images: list) -> tuple:
    """Class logits and boxes of the last decoder layer."""
    batch, samples = pad(images)
    with torch.no_grad():
        inputs = model.forward_transformer(model.extract_feat(batch), samples)
        inputs.pop('enc_outputs_class', None), inputs.pop('enc_outputs_coord', None)
        classes, boxes = model.bbox_head(**inputs)
    return classes[-1].numpy(), boxes[-1].numpy()


@pytest.mark.parametrize('name', CONFIGS)
def test_outputs_are_those_of_the_authors(name):
    outputs = golden_outputs(name)
    weights, _ = official_to_mmdet(make_weights(golden_shapes(name)))
    matching = find_matching_config(model_options(weights, **MODELS_OF_GOLDEN[name]))
    assert matching.name.startswith(CONFIGS[name])
    cfg = matching.read()
    check_weights_fit(cfg, weights)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(weights, strict=True)
    classes, boxes = raw_outputs(model, make_images(outputs))
    logit_error = np.abs(classes - outputs['pred_logits'][..., list(COCO_CATEGORY_IDS)]).max()
    box_error = np.abs(boxes - outputs['pred_boxes']).max()
    print(f'{name}: logits {logit_error:.1e}, boxes {box_error:.1e}')
    assert logit_error <= 1e-4
    assert box_error <= 1e-5
