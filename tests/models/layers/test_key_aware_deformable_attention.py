"""The attention module against the authors' outputs, and as a drop-in for mmcv's."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.registry import MODELS

from lite_detr_mmdet.models.layers import KeyAwareDeformableAttention

SHAPES = torch.tensor([[8, 6], [4, 3], [2, 2]])
STARTS = torch.tensor([0, 48, 60])
NUM_VALUE = 64


def build(**kwargs) -> KeyAwareDeformableAttention:
    cfg = dict(embed_dims=32, num_heads=4, num_levels=3, num_points=2, dropout=0.0, batch_first=True, **kwargs)
    return MODELS.build(dict(type='KeyAwareDeformableAttention', **cfg))


def inputs(bs: int = 2, num_queries: int = 7, box: bool = False) -> dict:
    return dict(
        query=torch.randn(bs, num_queries, 32),
        value=torch.randn(bs, NUM_VALUE, 32),
        reference_points=torch.rand(bs, num_queries, 3, 4 if box else 2),
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )


def randomize(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize('name', ['kda_shared_kv', 'kda_separate_key', 'kda_boxes'])
def test_authors_outputs_and_gradients(golden, name):
    data = golden(name)
    module = KeyAwareDeformableAttention(
        embed_dims=data['embed_dims'],
        num_heads=data['num_heads'],
        num_levels=data['num_levels'],
        num_points=data['num_points'],
        dropout=0.0,
        batch_first=True,
        key_proj=data['proj_key'],
        shared_offsets=data['same_loc'],
    ).double()
    parameters = {key[len('param.') :]: value for key, value in data.items() if key.startswith('param.')}
    module.load_state_dict(parameters, strict=True)
    query, value = data['query'].requires_grad_(), data['value'].requires_grad_()
    output = module(
        query=query,
        value=value,
        identity=torch.zeros_like(query),
        reference_points=data['reference_points'],
        spatial_shapes=data['spatial_shapes'],
        level_start_index=data['level_start_index'],
        key_padding_mask=data.get('key_padding_mask'),
    )
    output.backward(data['grad_output'])
    close = dict(rtol=0, atol=1e-9)
    torch.testing.assert_close(output, data['output'], **close)
    torch.testing.assert_close(query.grad, data['grad_query'], **close)
    torch.testing.assert_close(value.grad, data['grad_value'], **close)
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, data[f'grad_param.{key}'], **close)


def test_drop_in_for_mmcv():
    module = build()
    assert isinstance(module, MultiScaleDeformableAttention)
    names = set(dict(module.named_parameters()))
    layers = ('sampling_offsets', 'query_proj', 'value_proj', 'output_proj')
    assert names == {f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')}
    assert set(dict(build(key_proj=True).named_parameters())) - names == {'key_proj.weight', 'key_proj.bias'}


@pytest.mark.parametrize('box', [False, True])
@pytest.mark.parametrize('kwargs', [{}, dict(key_proj=True), dict(shared_offsets=True)])
def test_sequence_first(box, kwargs):
    first, second = build(**kwargs), build(**kwargs)
    randomize(first)
    second.load_state_dict(first.state_dict())
    second.batch_first = False
    args = inputs(box=box)
    expected = first(**args, query_pos=torch.ones(2, 7, 32))
    args['query'], args['value'] = args['query'].transpose(0, 1), args['value'].transpose(0, 1)
    output = second(**args, query_pos=torch.ones(7, 2, 32))
    torch.testing.assert_close(output.transpose(0, 1), expected)


def test_identity_and_dropout():
    module = build()
    randomize(module)
    args = inputs()
    attended = module(**args, identity=torch.zeros(2, 7, 32))
    torch.testing.assert_close(module(**args), attended + args['query'])
    identity = torch.randn(2, 7, 32)
    torch.testing.assert_close(module(**args, identity=identity), attended + identity)
    module.dropout.p = 1.0
    torch.testing.assert_close(module(**args, identity=identity), identity)


def test_query_pos_is_not_part_of_the_identity():
    module = build()
    randomize(module)
    args = inputs()
    query_pos = torch.randn(2, 7, 32)
    moved = {**args, 'query': args['query'] + query_pos}
    expected = module(**moved, identity=args['query'])
    torch.testing.assert_close(module(**args, query_pos=query_pos), expected)


@pytest.mark.parametrize('key_proj', [False, True])
def test_padded_tokens_do_not_matter(key_proj):
    module = build(key_proj=key_proj)
    randomize(module)
    args = inputs()
    mask = torch.rand(2, NUM_VALUE) < 0.4
    expected = module(**args, key_padding_mask=mask)
    args['value'][mask] = 1e3
    torch.testing.assert_close(module(**args, key_padding_mask=mask), expected)
    assert not torch.allclose(module(**args), expected)


def test_query_is_the_default_value():
    module = build()
    randomize(module)
    args = inputs(num_queries=NUM_VALUE)
    del args['value']
    torch.testing.assert_close(module(**args), module(**args, value=args['query']))


def test_init_cfg_has_the_last_word():
    zero = dict(type='Constant', val=0, layer=[], override=dict(name='query_proj'))
    module = KeyAwareDeformableAttention(init_cfg=zero)
    for _ in range(2):
        assert not module.query_proj.weight.any()
        assert module.value_proj.weight.std() > 0.01 and module.sampling_offsets.bias.any()
        torch.nn.init.normal_(module.query_proj.weight)
        module.init_weights()  # as detectors do


@pytest.mark.parametrize('shared_offsets', [False, True])
def test_initialisation_survives_the_detectors(shared_offsets):
    module = build(key_proj=True, shared_offsets=shared_offsets)
    reference = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=3, num_points=2)
    for parameter in module.parameters():  # what hosts do to every matrix before they call init_weights
        if parameter.dim() > 1:
            torch.nn.init.xavier_uniform_(parameter)
    module.init_weights()
    assert module.sampling_offsets.weight.abs().max() == 0
    bias = reference.sampling_offsets.bias.view(4, 3, 2, 2)
    if shared_offsets:
        bias = bias[:, :1]
    torch.testing.assert_close(module.sampling_offsets.bias, bias.reshape(-1))
    for layer in (module.query_proj, module.key_proj, module.value_proj, module.output_proj):
        assert layer.bias.abs().max() == 0
        assert 0 < layer.weight.abs().max() <= (6 / 64) ** 0.5  # Xavier's bound for 32 in, 32 out


def test_shared_offsets_are_those_of_every_level():
    shared, full = build(shared_offsets=True), build()
    randomize(shared)
    state = shared.state_dict()
    for name, tensor in list(state.items()):
        if name.startswith('sampling_offsets'):
            tensor = tensor.view(4, 1, 2, 2, -1).expand(-1, 3, -1, -1, -1)
            state[name] = tensor.reshape(4 * 3 * 2 * 2, -1).squeeze(-1)
    full.load_state_dict(state)
    args = inputs()
    torch.testing.assert_close(shared(**args), full(**args))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match='embed_dims'):
        KeyAwareDeformableAttention(embed_dims=30, num_heads=4)
    module = build()
    args = inputs()
    with pytest.raises(ValueError, match='spatial_shapes'):
        module(**{**args, 'spatial_shapes': torch.tensor([[8, 6], [4, 3], [2, 3]])})
    with pytest.raises(ValueError, match='reference_points'):
        module(**{**args, 'reference_points': torch.rand(2, 7, 3, 3)})
    with pytest.raises(TypeError, match='level_start_index'):
        module(**{**args, 'level_start_index': None})


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    module = build()
    randomize(module)
    args = inputs()
    expected = module(**args)
    with torch.autocast('cpu', dtype):
        output = module(**args)
    output.float().sum().backward()
    assert (output - expected).norm() < 0.03 * expected.norm()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
