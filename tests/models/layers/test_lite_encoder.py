"""The interleaved encoder against the authors' outputs, the stock encoder and a direct form of Eq. 1 and 2."""

import re

import pytest
import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder
from mmdet.registry import MODELS
from torch import nn

from lite_detr_mmdet.models.layers import LiteEncoder, LiteEncoderLayer

KDA, MSDA = 'KeyAwareDeformableAttention', 'MultiScaleDeformableAttention'
OFFICIAL_NAMES = {
    'linear12': 'low_level_ffn.layers.0.0',
    'linear22': 'low_level_ffn.layers.1',
    'norm22': 'low_level_norm',
    'linear1': 'ffn.layers.0.0',
    'linear2': 'ffn.layers.1',
    'norm1': 'norms.0',
    'norm2': 'norms.1',
}


def layer_cfg(num_levels: int, attention: str = KDA, **self_attn) -> dict:
    self_attn_cfg = dict(embed_dims=16, num_heads=4, num_levels=num_levels, num_points=2, dropout=0.0, **self_attn)
    if attention is not None:
        self_attn_cfg['type'] = attention
    return dict(self_attn_cfg=self_attn_cfg, ffn_cfg=dict(embed_dims=16, feedforward_channels=32, ffn_drop=0.0))


def build(num_levels: int = 3, attention: str = KDA, **kwargs) -> LiteEncoder:
    encoder = MODELS.build(dict(type='LiteEncoder', layer_cfg=layer_cfg(num_levels, attention), **kwargs))
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return encoder


def inputs(num_levels: int = 3, bs: int = 2, padded: bool = True) -> dict:
    shapes = torch.tensor([[2 ** (num_levels - level), 3 * 2 ** (num_levels - level)] for level in range(num_levels)])
    sizes = shapes.prod(1)
    num_value = int(sizes.sum())
    return dict(
        query=torch.randn(bs, num_value, 16),
        query_pos=torch.randn(bs, num_value, 16),
        key_padding_mask=torch.rand(bs, num_value) < 0.2 if padded else None,
        spatial_shapes=shapes,
        level_start_index=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]]),
        valid_ratios=torch.rand(bs, num_levels, 2) * 0.5 + 0.5,
    )


@pytest.mark.parametrize('name', ['encoder_h3l1_2plus1_x2', 'encoder_h2l2_3plus1_x1'])
def test_authors_outputs_and_gradients(golden, name):
    data = golden(name)
    num_levels = len(data['spatial_shapes'])
    encoder = LiteEncoder(
        num_layers=data['num_blocks'] * data['layers_per_block'],
        num_blocks=data['num_blocks'],
        num_low_levels=num_levels - data['num_high_levels'],
        low_level_ffn_ratio=data['ffn_dims'] // data['small_ffn_dims'],
        layer_cfg=dict(
            self_attn_cfg=dict(
                type=KDA,
                embed_dims=data['embed_dims'],
                num_heads=data['num_heads'],
                num_levels=num_levels,
                num_points=data['num_points'],
                dropout=0.0,
            ),
            ffn_cfg=dict(embed_dims=data['embed_dims'], feedforward_channels=data['ffn_dims']),
        ),
    ).double()
    state = {
        re.sub('|'.join(OFFICIAL_NAMES), lambda match: OFFICIAL_NAMES[match.group()], key[len('param.') :]): value
        for key, value in data.items()
        if key.startswith('param.')
    }
    encoder.load_state_dict(state, strict=True)
    feat = data['feat'].requires_grad_()
    memory = encoder(
        query=feat,
        query_pos=data['pos'],
        **{key: data[key] for key in ('key_padding_mask', 'spatial_shapes', 'level_start_index', 'valid_ratios')},
    )
    memory.backward(data['grad_output'])
    torch.testing.assert_close(memory, data['output'], rtol=0, atol=1e-9)
    torch.testing.assert_close(feat.grad, data['grad_feat'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('low_level_update', ['joint', 'sequential', 'none'])
def test_no_low_levels_is_the_stock_encoder(low_level_update):
    stock = DeformableDetrTransformerEncoder(num_layers=4, layer_cfg=layer_cfg(3, attention=None))
    lite = build(attention=MSDA, num_layers=4, num_blocks=2, num_low_levels=0, low_level_update=low_level_update)
    lite.load_state_dict(stock.state_dict(), strict=True)
    args = inputs()
    stock_query, lite_query = (args['query'].clone().requires_grad_() for _ in range(2))
    expected = stock(**{**args, 'query': stock_query})
    memory = lite(**{**args, 'query': lite_query})
    assert torch.equal(memory, expected)
    grad = torch.randn_like(memory)
    expected.backward(grad)
    memory.backward(grad)
    assert torch.equal(lite_query.grad, stock_query.grad)


def test_same_seed_builds_the_stock_encoder():
    torch.manual_seed(1)
    stock = DeformableDetrTransformerEncoder(num_layers=2, layer_cfg=layer_cfg(3, attention=None))
    torch.manual_seed(1)
    lite = LiteEncoder(num_layers=2, num_blocks=1, num_low_levels=0, layer_cfg=layer_cfg(3, attention=None))
    for (name, expected), (lite_name, parameter) in zip(stock.named_parameters(), lite.named_parameters()):
        assert name == lite_name and torch.equal(parameter, expected)


def direct_form(encoder: LiteEncoder, args: dict) -> torch.Tensor:
    """The three update schemes written out block by block, without the encoder's own forward."""
    split = int(args['spatial_shapes'][: encoder.num_low_levels].prod(1).sum())
    points = encoder.get_encoder_reference_points(args['spatial_shapes'], args['valid_ratios'], 'cpu')
    low, high = args['query'][:, :split], args['query'][:, split:]

    def attend(layer, query, part):
        query = layer.self_attn(
            query=query,
            value=torch.cat([low, high], 1),
            query_pos=args['query_pos'][:, part],
            key_padding_mask=args['key_padding_mask'],
            reference_points=points[:, part],
            spatial_shapes=args['spatial_shapes'],
            level_start_index=args['level_start_index'],
        )
        return layer.norms[0](query)

    per_block = encoder.num_layers // encoder.num_blocks
    for index, layer in enumerate(encoder.layers):
        closing = (index + 1) % per_block == 0
        if encoder.low_level_update == 'sequential' and closing:  # Eq. 2
            query = attend(layer, low, slice(0, split))
            low = layer.low_level_norm(layer.low_level_ffn(query))
        elif encoder.low_level_update == 'joint' and closing:
            query = attend(layer, torch.cat([low, high], 1), slice(None))
            low = layer.low_level_norm(layer.low_level_ffn(query[:, :split]))
            high = layer.norms[1](layer.ffn(query[:, split:]))
        else:  # Eq. 1
            high = layer.norms[1](layer.ffn(attend(layer, high, slice(split, None))))
    return high if encoder.low_level_update == 'none' else torch.cat([low, high], 1)


@pytest.mark.parametrize('attention', [KDA, MSDA])
@pytest.mark.parametrize(
    ('low_level_update', 'high_updates', 'num_blocks'),
    [
        ('joint', 2, 3),
        ('joint', 6, 1),
        ('joint', 1, 2),
        ('sequential', 2, 3),
        ('sequential', 1, 1),
        ('none', 3, 1),
    ],
)
@pytest.mark.parametrize(('num_levels', 'num_low_levels'), [(3, 1), (4, 1), (4, 2), (4, 3), (5, 2), (2, 1)])
def test_every_split(attention, low_level_update, high_updates, num_blocks, num_levels, num_low_levels):
    layers_per_block = high_updates + (low_level_update == 'sequential')
    encoder = build(
        num_levels,
        attention,
        num_layers=layers_per_block * num_blocks,
        num_blocks=num_blocks,
        num_low_levels=num_low_levels,
        low_level_update=low_level_update,
    )
    args = inputs(num_levels)
    memory = encoder(**args)
    torch.testing.assert_close(memory, direct_form(encoder, args), rtol=1e-5, atol=1e-5)
    memory.sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_high_level_layers_leave_low_level_tokens_alone():
    encoder = build(num_layers=2, num_blocks=1, num_low_levels=1)
    args = inputs()
    seen = {}
    for name, module in encoder.named_modules():
        if (
            'ffn' in name.rsplit('.', 1)[-1]
            or 'norm' in name.rsplit('.', 1)[-1]
            or name.rsplit('.', 2)[-2:-1] == ['norms']
        ):
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].shape[1]}))
    encoder(**args)
    num_low, num_all = int(args['level_start_index'][1]), args['query'].shape[1]
    assert seen['layers.0.norms.0'] == seen['layers.0.norms.1'] == seen['layers.0.ffn'] == num_all - num_low
    assert seen['layers.1.norms.0'] == num_all
    assert seen['layers.1.ffn'] == seen['layers.1.norms.1'] == num_all - num_low
    assert seen['layers.1.low_level_ffn'] == seen['layers.1.low_level_norm'] == num_low


def test_small_feed_forward_network():
    encoder = build(num_layers=2, num_blocks=1, low_level_ffn_ratio=8)
    assert not hasattr(encoder.layers[0], 'low_level_ffn')
    assert encoder.layers[1].low_level_ffn.layers[0][0].out_features == 4
    assert encoder.layers[1].ffn.layers[0][0].out_features == 32


@pytest.mark.parametrize('low_level_update', ['joint', 'sequential'])
def test_activation_checkpointing(low_level_update):
    kept = build(num_layers=4, num_blocks=2, low_level_update=low_level_update)
    recomputed = build(num_layers=4, num_blocks=2, low_level_update=low_level_update, num_cp=3)
    recomputed.load_state_dict(kept.state_dict())
    calls = []
    recomputed.layers[1].register_forward_pre_hook(lambda *_: calls.append(1))
    args = inputs()
    for encoder in (kept, recomputed):
        encoder(**args).square().sum().backward()
    assert len(calls) == 2  # once forward, once again for the backward pass
    for expected, parameter in zip(kept.parameters(), recomputed.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad)


@pytest.mark.parametrize('low_level_update', ['joint', 'sequential', 'none'])
def test_levels_from_low_to_high_resolution(low_level_update):
    """With the levels of inputs and parameters reversed, the outputs are the same, reversed."""
    options = dict(num_layers=4, num_blocks=2, num_low_levels=1, low_level_update=low_level_update)
    encoder = build(**options)
    backwards = build(low_levels_first=False, **options)
    state = encoder.state_dict()
    for name in state:
        if 'sampling_offsets' in name:
            state[name] = state[name].unflatten(0, (4, 3, 2, 2)).flip(1).flatten(0, 3)
    backwards.load_state_dict(state)
    args = inputs()
    sizes = args['spatial_shapes'].prod(1).tolist()

    def reverse(tokens, sizes=sizes):
        return torch.cat(tokens.split(sizes, 1)[::-1], 1)

    reversed_args = {
        **{key: reverse(args[key]) for key in ('query', 'query_pos', 'key_padding_mask')},
        'spatial_shapes': args['spatial_shapes'].flip(0),
        'valid_ratios': args['valid_ratios'].flip(1),
        'level_start_index': torch.tensor([0, sizes[2], sizes[2] + sizes[1]]),
    }
    expected = encoder(**args)
    memory = backwards(**reversed_args)
    expected = reverse(expected, sizes[1:] if low_level_update == 'none' else sizes)
    torch.testing.assert_close(memory, expected, rtol=1e-5, atol=1e-5)


def test_level_shapes_spare_reading_the_device():
    encoder = build(num_layers=2, num_blocks=1)
    args = inputs()
    shapes = [tuple(shape) for shape in args['spatial_shapes'].tolist()]
    assert torch.equal(encoder(**args), encoder(**args, level_shapes=shapes))


@pytest.mark.parametrize('low_level_update', ['joint', 'sequential', 'none'])
def test_inference_overwrites_only_its_own_tokens(low_level_update):
    encoder = build(num_layers=4, num_blocks=2, low_level_update=low_level_update)
    args = inputs()
    expected = encoder(**args)
    with torch.no_grad():
        assert torch.equal(encoder(**args), expected)


def test_input_is_not_changed():
    encoder = build(num_layers=2, num_blocks=1)
    args = inputs()
    before = args['query'].clone()
    with torch.no_grad():
        encoder(**args)
    assert torch.equal(args['query'], before)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(num_layers=5, num_blocks=2), 'num_layers'),
        (dict(num_layers=0, num_blocks=1), 'num_layers'),
        (dict(num_layers=3, num_blocks=3, low_level_update='sequential'), '2 \\* num_blocks'),
        (dict(num_layers=2, num_blocks=1, num_low_levels=3), 'num_low_levels'),
        (dict(num_layers=2, num_blocks=1, num_low_levels=-1), 'num_low_levels'),
        (dict(num_layers=2, num_blocks=1, low_level_update='both'), 'low_level_update'),
        (dict(num_layers=2, num_blocks=1, low_level_ffn_ratio=5), 'low_level_ffn_ratio'),
        (dict(num_layers=2, num_blocks=1, num_cp=3), 'num_cp'),
    ],
)
def test_bad_configs_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_wrong_number_of_levels_is_named():
    encoder = build(num_layers=2, num_blocks=1)
    with pytest.raises(ValueError, match='3 levels, got 4'):
        encoder(**inputs(num_levels=4))


def test_layer_from_the_registry():
    """A config can swap the layer."""

    @MODELS.register_module('CountingLiteEncoderLayer', force=True)
    class CountingLayer(LiteEncoderLayer):
        pass

    attention = dict(embed_dims=32, num_levels=2)
    layer_cfg = dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=32, feedforward_channels=64))
    try:
        encoder = LiteEncoder(num_layers=2, num_blocks=1, layer_cfg=dict(layer_cfg, type='CountingLiteEncoderLayer'))
    finally:
        MODELS.module_dict.pop('CountingLiteEncoderLayer')
    assert all(type(layer) is CountingLayer for layer in encoder.layers)
    assert all(type(layer) is LiteEncoderLayer for layer in LiteEncoder(2, layer_cfg, num_blocks=1).layers)


def test_low_levels_that_are_kept_are_as_they_came():
    attention = dict(embed_dims=32, num_levels=2, num_heads=4, dropout=0.0, batch_first=True)
    layer_cfg = dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.0))
    options = dict(num_layers=2, num_blocks=1, layer_cfg=layer_cfg, low_level_update='none')
    encoder, dropping = LiteEncoder(**options, keep_low_levels=True).eval(), LiteEncoder(**options).eval()
    dropping.load_state_dict(encoder.state_dict())
    query = torch.randn(1, 20, 32)
    inputs = dict(
        query_pos=torch.randn(1, 20, 32),
        key_padding_mask=None,
        spatial_shapes=torch.tensor([[4, 4], [2, 2]]),
        level_start_index=torch.tensor([0, 16]),
        valid_ratios=torch.ones(1, 2, 2),
    )
    memory = encoder(query.clone(), **inputs)
    assert not encoder.drops_low_levels and dropping.drops_low_levels
    assert torch.equal(memory[:, :16], query[:, :16]) and torch.equal(
        memory[:, 16:], dropping(query.clone(), **inputs)
    )


def test_activations_work_in_place_in_evaluation_only():
    encoder = build(num_layers=2, num_blocks=1)
    activations = [module for module in encoder.modules() if isinstance(module, nn.ReLU)]
    assert len(activations) == 3
    assert not any(activation.inplace for activation in activations)
    assert all(activation.inplace for activation in encoder.eval().modules() if isinstance(activation, nn.ReLU))
    args = inputs()

    def gradients() -> list:
        encoder.zero_grad()
        encoder(**args).square().sum().backward()
        return [parameter.grad.clone() for parameter in encoder.parameters()]

    in_place = gradients()  # evaluation
    encoder.train()
    assert not any(activation.inplace for activation in activations)
    assert all(map(torch.equal, gradients(), in_place))


def test_activation_of_the_config_stays_out_of_place():
    cfg = layer_cfg(3)
    cfg['ffn_cfg']['act_cfg'] = dict(type='ReLU', inplace=False)
    encoder = MODELS.build(dict(type='LiteEncoder', layer_cfg=cfg, num_layers=2, num_blocks=1)).eval()
    assert not any(module.inplace for module in encoder.modules() if isinstance(module, nn.ReLU))
