"""The packed layers, each beside torch's own, and the memory that layers share."""

import pytest
import torch
from torch import nn

from lite_detr_mmdet.acceleration import onednn
from lite_detr_mmdet.acceleration.linears import blocks
from lite_detr_mmdet.acceleration.scratch import scratch, shared_scratch

pytestmark = pytest.mark.skipif(onednn.why_not(torch.float32) is not None, reason='no oneDNN in this torch')
ACTIVATIONS = (None, nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.GELU(approximate='tanh'), nn.Hardtanh(-0.5, 0.7))


@torch.no_grad()
@pytest.mark.parametrize('activation', ACTIVATIONS, ids=str)
@pytest.mark.parametrize('bias', [True, False])
def test_linear(activation, bias):
    layer, x = nn.Linear(12, 20, bias=bias), 3 * torch.randn(2, 5, 12)
    packed = onednn.pack_linear(layer.weight, layer.bias, torch.float32)
    expected = layer(x) if activation is None else activation(layer(x))
    actual = onednn.linear(x, packed, onednn.fused_activation(activation))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_linear_add():
    layer, x, identity = nn.Linear(12, 20), torch.randn(5, 12), torch.randn(5, 20)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        if onednn.why_not(dtype) is None:
            actual = onednn.linear_add(x, onednn.pack_linear(layer.weight, layer.bias, dtype), identity)
            torch.testing.assert_close(actual, layer(x) + identity, atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize('groups', [1, 4, 8])
@pytest.mark.parametrize('stride, padding, dilation, kernel', [(1, 1, 1, 3), (2, 0, 1, 1), (2, 3, 1, 7), (1, 2, 2, 3)])
def test_conv_with_batch_norm(groups, stride, padding, dilation, kernel):
    conv = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups)
    norm = nn.BatchNorm2d(16).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    for size in ((15, 18), (9, 11)):  # the layout is chosen for the first one
        x = torch.randn(2, 8, *size).contiguous(memory_format=torch.channels_last)
        packed = onednn.pack_conv(conv, norm, (2, 8, 15, 18), torch.float32)
        expected = norm(conv(x))
        torch.testing.assert_close(onednn.conv2d(x, packed, onednn.RELU), expected.relu(), atol=1e-5, rtol=1e-4)
        identity = torch.randn_like(expected).contiguous(memory_format=torch.channels_last)
        total = (expected + identity).relu()
        torch.testing.assert_close(
            onednn.conv2d_add_relu(x, packed, identity, in_place=False), total, atol=1e-5, rtol=1e-4
        )
        onednn.conv2d_add_relu(x, packed, identity, in_place=True)
        torch.testing.assert_close(identity, total, atol=1e-5, rtol=1e-4)


def test_unknown_activations_are_not_fused():
    assert onednn.fused_activation(nn.Softplus()) is None
    assert onednn.fused_activation(nn.Dropout(0.5)) is None


@pytest.mark.parametrize('num_rows', [0, 1, 255, 256, 257, 5000])
@pytest.mark.parametrize('numbers', [1, 300, 2048, 10**9])
def test_blocks_cover_all_rows_once(num_rows, numbers):
    rows = [row for start, stop in blocks(num_rows, numbers) for row in range(start, stop)]
    assert rows == list(range(num_rows))


def test_scratch_is_shared_inside_its_block_alone():
    first = scratch('a', (4, 2), torch.float32)
    assert scratch('a', (4, 2), torch.float32).data_ptr() != first.data_ptr()
    with shared_scratch():
        one = scratch('a', (4, 2), torch.float32)
        assert scratch('a', (2, 3), torch.float32).data_ptr() == one.data_ptr()
        assert scratch('b', (4, 2), torch.float32).data_ptr() != one.data_ptr()
        assert scratch('a', (4, 2), torch.bfloat16).data_ptr() != one.data_ptr()
        with shared_scratch():
            assert scratch('a', (4, 2), torch.float32).data_ptr() != one.data_ptr()
        assert scratch('a', (100,), torch.float32).shape == (100,)
