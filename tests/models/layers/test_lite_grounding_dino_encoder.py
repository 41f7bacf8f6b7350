"""Which tokens the encoder of Lite-Grounding-DINO fuses with the text, and what reaches what."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

SIZES = (24, 6, 2)  # tokens of each level


def build(**kwargs):
    encoder = MODELS.build(
        dict(
            type='LiteGroundingDinoEncoder',
            layer_cfg=dict(
                self_attn_cfg=dict(
                    type='KeyAwareDeformableAttention', embed_dims=16, num_heads=4, num_levels=3, dropout=0.0
                ),
                ffn_cfg=dict(embed_dims=16, feedforward_channels=32),
            ),
            text_layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=16, num_heads=2), ffn_cfg=dict(embed_dims=16, feedforward_channels=32)
            ),
            fusion_layer_cfg=dict(v_dim=16, l_dim=16, embed_dim=32, num_heads=2, dropout=0.0, init_values=0.5),
            **kwargs,
        )
    )
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return encoder


@pytest.fixture
def inputs():
    shapes = torch.tensor([[4, 6], [2, 3], [1, 2]])
    masks = torch.eye(5, dtype=torch.bool).expand(2, 5, 5).clone()
    masks[:, :3, :3] = True
    return dict(
        query=torch.randn(2, 32, 16),
        query_pos=torch.randn(2, 32, 16),
        key_padding_mask=torch.rand(2, 32) < 0.1,
        spatial_shapes=shapes,
        level_start_index=torch.tensor([0, 24, 30]),
        valid_ratios=torch.ones(2, 3, 2),
        memory_text=torch.randn(2, 5, 16),
        text_attention_mask=torch.zeros(2, 5, dtype=torch.bool),
        text_self_attention_masks=masks,
        position_ids=torch.tensor([[0, 1, 2, 0, 0]] * 2),
    )


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(), [8, 8, 8, 8]),
        (dict(fuse_low_level=True), [8, 32, 8, 32]),
        (dict(fuse_low_level=True, low_level_update='sequential'), [8, 24, 8, 24]),
        (dict(low_level_update='sequential'), [8, 8, 8, 8]),
        (dict(num_low_levels=0), [32, 32, 32, 32]),
    ],
    ids=str,
)
def test_tokens_that_are_fused(inputs, options, expected):
    encoder = build(num_layers=4, num_blocks=2, **options)
    fused = []
    for layer in encoder.fusion_layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: fused.append(kwargs['visual_feature'].shape[1]), with_kwargs=True
        )
    memory, text = encoder(**inputs)
    assert fused == expected
    assert memory.shape == (2, 32, 16) and text.shape == (2, 5, 16)
    (memory.sum() + text.sum()).backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_text_and_low_level_tokens_reach_each_other(inputs):
    encoder = build(num_layers=4, num_blocks=2)
    inputs['query'].requires_grad_()
    inputs['memory_text'].requires_grad_()
    memory, text = encoder(**inputs)
    (to_text,) = torch.autograd.grad(memory[:, : SIZES[0]].sum(), inputs['memory_text'], retain_graph=True)
    (to_image,) = torch.autograd.grad(text.sum(), inputs['query'])
    assert (to_text.abs().sum(-1) > 0).all()
    assert (to_image[:, : SIZES[0]].abs().sum(-1) > 0).float().mean() > 0.5


def test_high_level_tokens_only(inputs):
    encoder = build(num_layers=2, num_blocks=1, low_level_update='none')
    memory, text = encoder(**inputs)
    assert memory.shape == (2, 8, 16) and text.shape == (2, 5, 16)


@pytest.mark.parametrize('fuse_low_level', [False, True])
def test_inference_and_activation_checkpointing(inputs, fuse_low_level):
    kept = build(num_layers=4, num_blocks=2, fuse_low_level=fuse_low_level)
    recomputed = build(num_layers=4, num_blocks=2, fuse_low_level=fuse_low_level, num_cp=4)
    recomputed.load_state_dict(kept.state_dict())
    before = inputs['query'].clone()
    with torch.no_grad():
        memory, text = kept(**inputs)
    assert torch.equal(inputs['query'], before)
    for encoder in (kept, recomputed):
        outputs = encoder(**inputs)
        assert torch.equal(outputs[0], memory) and torch.equal(outputs[1], text)
        (outputs[0].square().sum() + outputs[1].square().sum()).backward()
    for expected, parameter in zip(kept.parameters(), recomputed.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_level_shapes_spare_reading_the_device(inputs):
    encoder = build(num_layers=2, num_blocks=1)
    inputs['key_padding_mask'] = None
    shapes = [tuple(shape) for shape in inputs['spatial_shapes'].tolist()]
    expected = encoder(**inputs)
    result = encoder(**inputs, level_shapes=shapes)
    assert torch.equal(result[0], expected[0]) and torch.equal(result[1], expected[1])
