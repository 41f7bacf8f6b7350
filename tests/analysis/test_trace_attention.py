"""Tracing attention: the numbers are those of the model, and the model does not notice."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis import trace_attention
from lite_detr_mmdet.analysis.sampling import compute_samples
from lite_detr_mmdet.apis.models import _initialise
from lite_detr_mmdet.datasets.checks import DatasetError
from lite_detr_mmdet.models.layers import (
    FusedMultiScaleDeformableAttention,
    KeyAwareDeformableAttention,
    swap_attention,
)
from lite_detr_mmdet.models.layers.attention_call import AttentionCall, read_attention_call, sampling_offsets
from lite_detr_mmdet.ops import multi_scale_deform_attn

LITE = 'lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
SEQUENTIAL = 'lite_dino/lite-dino-4scale_h3l1-2p1x3-seq_r50_8xb2-36e_coco.py'
STOCK = 'dino/dino-4scale_r18_1xb4-12e_shapes.py'
HOSTS = (
    LITE,
    SEQUENTIAL,
    STOCK,
    'deformable_detr/deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco.py',
    'h_detr/h-detr_r50_8xb2-36e_coco.py',
    'lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'lite_deformable_detr/lite-deformable-detr_h2l2-2p1x3_r50_16xb2-50e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-6p0x1-msda_r50_8xb2-36e_coco.py',
    'lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py',
)


@pytest.fixture
def build(tiny_config):
    """Build a small detector whose attention looks in all directions."""

    def make(path: str) -> nn.Module:
        cfg = tiny_config(path, num_queries=10)
        cfg.model.backbone.update(depth=18, base_channels=8)
        cfg.model.neck.in_channels = [16, 32, 64][-len(cfg.model.neck.in_channels) :]
        model = MODELS.build(cfg.model)
        _initialise(model)
        for module in model.modules():
            for name in ('sampling_offsets', 'attention_weights'):
                if isinstance(getattr(module, name, None), nn.Linear):
                    nn.init.normal_(getattr(module, name).weight, std=0.05)
        for branch in model.bbox_head.reg_branches:
            nn.init.normal_(branch[-1].weight, std=0.02)
        model.cfg = cfg
        return model.eval()

    return make


def predict(model: nn.Module, batch: dict) -> list:
    with torch.no_grad():
        samples = model(**model.data_preprocessor(copy.deepcopy(batch), False), mode='predict')
    return [sample.pred_instances for sample in samples]


def equal(first: list, second: list) -> bool:
    return all(
        torch.equal(one.bboxes, two.bboxes) and torch.equal(one.scores, two.scores) for one, two in zip(first, second)
    )


@torch.no_grad()
def output_of(layer, identity: torch.Tensor) -> torch.Tensor:
    """What an attention returns, from the weights and locations of its trace by the definition."""
    module, call, num_points = layer.module, layer.call, layer.locations.shape[4]
    value = module.value_proj(call.value).unflatten(-1, (module.num_heads, -1))
    if call.key_padding_mask is not None:
        value = value.masked_fill(call.key_padding_mask[..., None, None], 0)
    unit = torch.tensor([0.0, 0.0, 2.0 * num_points, 2.0 * num_points])  # offsets in this box are locations
    output = multi_scale_deform_attn(
        value=value.contiguous(),
        spatial_shapes=call.spatial_shapes,
        level_start_index=torch.zeros(len(call.spatial_shapes), dtype=torch.long).copy_(
            torch.cat([call.spatial_shapes.new_zeros(1), call.spatial_shapes.prod(1).cumsum(0)[:-1]])
        ),
        reference_points=unit.expand(*call.reference_points.shape[:3], 4).contiguous(),
        sampling_offsets=layer.locations.contiguous(),
        attention_weights=layer.weights.contiguous(),
        backend='reference',
    )
    return module.output_proj(output) + identity


@pytest.mark.parametrize('path', HOSTS, ids=lambda path: path.partition('/')[2].partition('_')[0])
def test_weights_are_those_of_the_model_which_runs_as_ever(build, batch, path):
    model, data = build(path), batch(size=(96, 128), num_boxes=(1, 1))
    expected = predict(model, data)
    outputs = {}

    def keep(module, args, kwargs, output):
        identity = kwargs['query'] if kwargs.get('identity') is None else kwargs['identity']
        outputs[module] = output.clone(), identity.clone()

    def copy_identity(module, args, kwargs):  # layers write over their inputs
        return args, {**kwargs, 'identity': kwargs['query'].clone()}

    for module in model.modules():
        if hasattr(module, 'sampling_offsets'):
            module.register_forward_pre_hook(copy_identity, with_kwargs=True)
            module.register_forward_hook(keep, with_kwargs=True)
    trace = trace_attention(model, data)
    assert equal([sample.pred_instances for sample in trace.predictions], expected)
    layers = trace.encoder + trace.decoder
    assert len(layers) == len(model.encoder.layers) + len(model.decoder.layers) == len(outputs)
    for layer in layers:
        output, identity = outputs[layer.module]
        sums = layer.weights.sum((3, 4))
        torch.testing.assert_close(sums, torch.ones_like(sums))
        torch.testing.assert_close(output_of(layer, identity), output, atol=1e-5, rtol=1e-5)
        some = layer.of_queries([3, 0])
        torch.testing.assert_close(some.weights, layer.weights[:, [3, 0]])
        torch.testing.assert_close(some.locations, layer.locations[:, [3, 0]])
    assert not any(module._forward_pre_hooks for module in (model.encoder, model.decoder))


@pytest.mark.parametrize(
    'path', [HOSTS[0], HOSTS[2], HOSTS[3], HOSTS[8]], ids=['lite', 'dino', 'deformable', 'h-detr']
)
def test_chosen_tokens_become_the_queries(build, batch, path):
    model, data = build(path), batch(size=(96, 128), num_boxes=(1, 1))
    trace = trace_attention(model, data)
    selection, first = trace.selection, trace.decoder[0]
    assert [tuple(level.shape[1:]) for level in selection.maps()] == list(first.level_shapes)
    torch.testing.assert_close(torch.cat([level.flatten(1) for level in selection.maps()], 1), selection.scores)
    with torch.no_grad():
        memory, proposals = model.gen_encoder_output_proposals(
            first.call.value, first.call.key_padding_mask, first.call.spatial_shapes
        )
        boxes = (model.bbox_head.reg_branches[model.decoder.num_layers](memory) + proposals).sigmoid()
    chosen = boxes.gather(1, selection.chosen[..., None].expand(-1, -1, 4))
    ratios = torch.cat([first.valid_ratios, first.valid_ratios], -1)[:, None]
    torch.testing.assert_close(first.reference_points, chosen[:, :, None] * ratios, atol=1e-5, rtol=1e-4)


def test_ddq_suppresses_neighbours_so_that_no_tokens_are_named(build, batch):
    selection = trace_attention(build(HOSTS[5]), batch(size=(96, 128), num_boxes=(1, 1))).selection
    assert selection.chosen is None and selection.scores.min() >= 0 and selection.scores.max() <= 1


def test_which_tokens_a_layer_updates(build, batch):
    data = batch(size=(64, 96), num_boxes=(1,))
    low = 8 * 12
    trace = trace_attention(build(SEQUENTIAL), data)
    assert [layer.updates for layer in trace.encoder] == ['high', 'high', 'low'] * 3
    assert trace.encoder[0].tokens == slice(low, low + 24 + 6 + 2) and trace.encoder[2].tokens == slice(0, low)
    assert trace.encoder[0].level_of(0) == 1 and trace.encoder[2].level_of(low - 1) == 0
    assert all(layer.num_queries == layer.tokens.stop - layer.tokens.start for layer in trace.encoder)
    trace = trace_attention(build(LITE), data)
    assert [layer.updates for layer in trace.encoder] == ['high', 'all']
    assert {layer.updates for layer in trace_attention(build(STOCK), data).encoder} == {'all'}
    with pytest.raises(IndexError, match='query must be less than'):
        trace.encoder[1].level_of(trace.encoder[1].num_queries)
    assert trace.decoder[0].level_of(0) is None and trace.decoder[0].updates == 'queries'


@pytest.mark.parametrize('path', [LITE, STOCK, HOSTS[5], HOSTS[8]], ids=['lite', 'dino', 'ddq', 'h-detr'])
def test_accelerated_models(build, batch, path):
    model, data = build(path), batch(size=(96, 128), num_boxes=(1, 1))
    plain = trace_attention(model, data)
    plain_samples = [layer.samples for layer in plain.encoder + plain.decoder]
    accelerate(model, verbose=False)
    expected = predict(model, data)
    trace = trace_attention(model, data)
    assert equal([sample.pred_instances for sample in trace.predictions], expected)
    for layer, samples in zip(trace.encoder, plain_samples):
        torch.testing.assert_close(layer.weights, samples.weights, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(layer.locations, samples.locations, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(trace.selection.scores, plain.selection.scores, atol=1e-4, rtol=1e-3)
    assert all('sample' not in module.__dict__ for module in model.modules())


def test_other_attention_on_the_same_weights(build, batch):
    model, data = build(STOCK), batch(size=(64, 96), num_boxes=(1,))
    samples = trace_attention(model, data).encoder[0].samples
    assert swap_attention(model)
    fused = trace_attention(model, data).encoder[0]
    assert type(fused.module) is FusedMultiScaleDeformableAttention
    torch.testing.assert_close(fused.weights, samples.weights)
    torch.testing.assert_close(fused.locations, samples.locations)


@pytest.mark.parametrize('batch_first', [True, False])
def test_a_planted_key_attracts_its_query(batch_first):
    module = KeyAwareDeformableAttention(8, num_heads=2, num_levels=2, num_points=1, batch_first=batch_first)
    for layer in (module.query_proj, module.value_proj):
        nn.init.eye_(layer.weight)
    nn.init.zeros_(module.sampling_offsets.bias)
    value = torch.zeros(1, 20, 8)
    value[:, 16 + 3, 4:] = 9.0  # the last token of the second level, for the second head
    query = torch.ones(1, 2, 8)
    reference = torch.tensor([[0.75, 0.75], [0.25, 0.25]])[None, :, None].expand(1, 2, 2, 2)
    if not batch_first:
        query, value = query.transpose(0, 1), value.transpose(0, 1)
    shapes = torch.tensor([[4, 4], [2, 2]])
    call = read_attention_call(module, query, value=value, reference_points=reference, spatial_shapes=shapes)
    weights = compute_samples(module, call).weights.squeeze(-1)[0]  # (queries, heads, levels)
    assert weights[0, 1, 1] > 0.99 and weights[0, 0].tolist() == weights[1, 1].tolist() == [0.5, 0.5]


def test_a_known_offset_lands_on_its_pixel(build, batch):
    model = build(STOCK)
    attention = model.encoder.layers[0].self_attn
    nn.init.zeros_(attention.sampling_offsets.weight)
    offsets = torch.zeros(attention.num_heads, attention.num_levels, attention.num_points, 2)
    offsets[3, 0, 2] = torch.tensor([2.0, -1.0])  # tokens of the first level, 8 pixels each
    attention.sampling_offsets.bias.data = offsets.flatten()
    image = np.zeros((96, 128, 3), np.uint8)
    model.cfg.test_dataloader.dataset.pipeline[1].scale = (64, 48)  # half as large as the image
    layer = trace_attention(model, image).encoder[0]
    assert layer.level_shapes[0] == (6, 8) and layer.image_sizes.tolist() == [[128.0, 96.0]]
    token = 2 * 8 + 3  # row 2, column 3 of the first level: its centre is at (3.5, 2.5) * 16 pixels of the image
    assert layer.reference_pixels[0, token].tolist() == pytest.approx([56.0, 40.0])
    pixels = layer.location_pixels[0, token, 3]
    assert pixels[0, 2].tolist() == pytest.approx([56.0 + 2 * 16, 40.0 - 16]) and pixels[2, 0].tolist() == [56, 40]


def test_padding_is_not_part_of_the_image(build, batch):
    model, data = build(STOCK), batch(size=(96, 128), num_boxes=(1, 1))  # the second image is 80x96
    layer = trace_attention(model, data).encoder[0]
    assert not torch.equal(layer.valid_ratios[1], torch.ones(4, 2))
    token = 9 * 16 + 11  # the last one of the first level that is not padding
    width, height = layer.image_sizes[1].tolist()
    assert layer.reference_pixels[1, token].tolist() == pytest.approx([width * 11.5 / 12, height * 9.5 / 10])


def test_boxes_as_references(build, batch):
    layer = trace_attention(build(LITE), batch(size=(96, 128), num_boxes=(1,))).decoder[-1]
    call: AttentionCall = layer.call
    boxes, offsets = call.reference_points, sampling_offsets(layer.module, call).detach()
    expected = boxes[0, 4, 1, :2] + offsets[0, 4, 2, 1, 3] / 4 * boxes[0, 4, 1, 2:] * 0.5
    torch.testing.assert_close(layer.locations[0, 4, 2, 1, 3], expected)


def test_image_files(build, tmp_path):
    model = build(LITE)
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / 'broken.png').write_bytes(b'no image')
    assert trace_attention(model, tmp_path / 'image.png').layer('encoder', -1).index == 1
    with pytest.raises(DatasetError, match=r'broken.png cannot be read as an image'):
        trace_attention(model, tmp_path / 'broken.png')
    with pytest.raises(DatasetError, match='image must be a file that exists'):
        trace_attention(model, str(tmp_path / 'none.png'))
    with pytest.raises(ValueError, match='layer must be from 0 to 1 in this encoder, got 2'):
        trace_attention(model, tmp_path / 'image.png').layer('encoder', 2)
    del model.cfg
    with pytest.raises(ValueError, match='model must have a cfg'):
        trace_attention(model, tmp_path / 'image.png')


def test_models_that_cannot_be_traced(build):
    image = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(ValueError, match=r'Linear has no encoder.layers: it must be a deformable DETR'):
        trace_attention(nn.Linear(1, 1), image)
    model = build(LITE)

    class Other(KeyAwareDeformableAttention):
        pass

    model.encoder.layers[0].self_attn.__class__ = Other
    with pytest.raises(ValueError, match=r'encoder.layers.0.self_attn must be one of .*, got Other'):
        trace_attention(model, image)
    model = build(LITE)
    model.encoder._compiled_call_impl = lambda *args, **kwargs: None  # what compile() sets
    with pytest.raises(ValueError, match='model must not be compiled, but encoder is'):
        trace_attention(model, image)
