"""Detectors with random weights, batches and calls to measure: encoder, whole detector, a step of training."""

from contextlib import nullcontext
from typing import Callable, ContextManager, Dict, List

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from ..models.detectors.tokens import check_num_tokens

NUM_OBJECTS = 10  # in each image of a training step
Autocast = Callable[[], ContextManager]


def build_model(config: str, device: str) -> nn.Module:
    """Build the detector of a config with random weights and without downloads."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(device).eval()


def make_batch(batch_size: int, shape: List[int], device: str) -> dict:
    """Images without padding, their meta data and objects, as the data preprocessor would give them."""
    height, width = shape
    meta = dict(img_shape=(height, width), ori_shape=(height, width), batch_input_shape=(height, width))
    samples = []
    for _ in range(batch_size):
        corners = torch.rand(NUM_OBJECTS, 2, 2, device=device).sort(1)[0] * torch.tensor(
            [width, height], device=device
        )
        sample = DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)})
        labels = torch.zeros(NUM_OBJECTS, dtype=torch.long, device=device)
        sample.gt_instances = InstanceData(bboxes=corners.flatten(1), labels=labels)
        samples.append(sample)
    return dict(inputs=torch.randn(batch_size, 3, height, width, device=device), data_samples=samples)


def encoder_call(model: nn.Module, batch: dict, autocast: Autocast = nullcontext) -> Callable:
    """A call of the encoder alone, on the inputs that it gets from ``batch``."""
    model.eval()
    with torch.inference_mode(), autocast():
        features = model.extract_feat(batch['inputs'])
        encoder_inputs, _ = model.pre_transformer(features, batch['data_samples'])

    def run() -> None:
        with torch.inference_mode(), autocast():
            model.forward_encoder(**encoder_inputs)

    return run


def detector_call(model: nn.Module, batch: dict, autocast: Autocast = nullcontext) -> Callable:
    """A call of the detector, to boxes.

    Raises:
        ValueError: If the images are too small for the detector.
    """
    check_num_tokens(model, *batch['inputs'].shape[2:])
    model.eval()

    def run() -> None:
        with torch.inference_mode(), autocast():
            model(**batch, mode='predict')

    return run


def encoder_training_call(model: nn.Module, batch: dict, autocast: Autocast = nullcontext) -> Callable:
    """Forward and backward of the encoder alone, on the inputs that it gets from ``batch``."""
    model.train()
    with torch.no_grad(), autocast():
        features = model.extract_feat(batch['inputs'])
        encoder_inputs, _ = model.pre_transformer(features, batch['data_samples'])
    encoder_inputs['feat'].requires_grad_()

    def run() -> None:
        with autocast():
            memory = model.forward_encoder(**encoder_inputs)['memory']
        memory.sum().backward()
        model.zero_grad()
        encoder_inputs['feat'].grad = None

    return run


def training_call(model: nn.Module, batch: dict, autocast: Autocast = nullcontext) -> Callable:
    """One step of training: loss, backward, optimizer. The learning rate is zero: random images teach nothing.

    Raises:
        ValueError: If the images are too small for the detector.
    """
    check_num_tokens(model, *batch['inputs'].shape[2:])
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)

    def run() -> None:
        with autocast():
            loss, _ = model.parse_losses(model(**batch, mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


CALLS = dict(
    encoder=encoder_call,
    detector=detector_call,
    encoder_training=encoder_training_call,
    training=training_call,
)


@torch.no_grad()
def prediction_error(model: nn.Module, reference: nn.Module, batch: dict) -> Dict[str, float]:
    """How far the boxes and scores of a DINO are from those of another form of it, query by query.

    Both decode the queries that the reference chooses: of tokens with nearly equal scores, which random weights give,
    each form chooses others.

    Args:
        model (nn.Module): The detector.
        reference (nn.Module): The detector to compare with.
        batch (dict): Images and data samples, as in :func:`make_batch`.

    Returns:
        dict[str, float]: Largest and mean error of boxes, in pixels, and of scores.
    """
    height, width = batch['inputs'].shape[2:]
    outputs, chosen = [], None
    for detector in (reference, model):
        encoder_inputs, decoder_inputs = detector.pre_transformer(
            detector.extract_feat(batch['inputs']), batch['data_samples']
        )
        encoder_outputs = detector.forward_encoder(**encoder_inputs)
        if chosen is None:
            chosen, _ = detector.pre_decoder(**encoder_outputs, batch_data_samples=batch['data_samples'])
        decoder_inputs.update(chosen, memory=encoder_outputs['memory'])
        outputs.append(detector.bbox_head(**detector.forward_decoder(**decoder_inputs)))
    (scores, boxes), (other_scores, other_boxes) = ((item[-1] for item in output) for output in outputs)
    box_error = ((boxes - other_boxes) * boxes.new_tensor([width, height, width, height])).abs()
    score_error = (scores.sigmoid() - other_scores.sigmoid()).abs()
    return dict(
        max_box_error_px=box_error.max().item(),
        mean_box_error_px=box_error.mean().item(),
        max_score_error=score_error.max().item(),
        mean_score_error=score_error.mean().item(),
    )
