"""Every wrong argument raises before anything is computed, and the message says what was expected and what came."""

import re

import pytest
import torch
from helpers.op_arguments import make_arguments

from lite_detr_mmdet.ops import key_aware_deform_attn

OPERATOR = torch.ops.lite_detr.key_aware_deform_attn


def call_function(arguments: dict) -> None:
    key_aware_deform_attn(**arguments, backend='reference')


def call_operator(arguments: dict) -> None:
    """The compiled operator on its own, with the checks that are written in C++."""
    names = ['query', 'value', 'spatial_shapes', 'level_start_index', 'reference_points', 'sampling_offsets', 'key']
    OPERATOR(*[arguments[name] for name in names])


# argument, what becomes of it, error, message
WRONG = [
    ('query', lambda x: x.int(), TypeError, r'query must .*, got (torch\.int32|Int)'),
    ('query', lambda x: x[0], ValueError, r'query must have 4 dimensions \(bs, num_queries, num_heads, head_dim\)'),
    ('query', lambda x: x[:1], ValueError, r'value must have size 1 in dimension 0 \(the batch size of query\)'),
    ('query', lambda x: x[:, :0], ValueError, r'must have size 0 in dimension 1 \(the queries of query\)'),
    ('query', lambda x: x[..., :0], ValueError, r'query must have at least one head and one channel per head'),
    ('query', lambda x: x[:, :, :0], ValueError, r'query must have at least one head and one channel per head'),
    ('value', lambda x: x.float(), TypeError, r'value must have the dtype of query, .*, got (torch\.float32|Float)'),
    ('value', lambda x: x[0], ValueError, r'value must have 4 dimensions'),
    ('value', lambda x: x[:1], ValueError, r'value must have size 2 in dimension 0 \(the batch size of query\)'),
    ('value', lambda x: x[:, :, :1], ValueError, r'value must have size 2 in dimension 2 \(the heads of query\)'),
    ('value', lambda x: x[..., :3], ValueError, r'value must have size 8 in dimension 3 \(the channels per head'),
    ('value', lambda x: x[:, 1:], ValueError, r'spatial_shapes .*must add up to the 79 tokens of value, got'),
    ('key', lambda x: x.float(), TypeError, r'key must have the dtype of query, .*, got (torch\.float32|Float)'),
    ('key', lambda x: x[:, 1:], ValueError, r'key must have the shape of value, .*80.*got .*79'),
    ('key', lambda x: x.int(), TypeError, r'key must .*, got (torch\.int32|Int)'),
    ('key', lambda x: x.to('meta'), ValueError, r'key must be on the device of query, cpu, got meta'),
    ('query', lambda x: x.to('meta'), ValueError, r'value must be on the device of query, meta, got cpu'),
    ('value', lambda x: x.to('meta'), ValueError, r'value must be on the device of query, cpu, got meta'),
    ('spatial_shapes', lambda x: x.float(), TypeError, r'spatial_shapes must .*, got (torch\.float32|Float)'),
    ('spatial_shapes', lambda x: x[0], ValueError, r'spatial_shapes must have 2 dimensions \(num_levels, 2\)'),
    ('spatial_shapes', lambda x: x[:, :1], ValueError, r'spatial_shapes must have size 2 in dimension 1'),
    ('spatial_shapes', lambda x: x[:0], ValueError, r'spatial_shapes must hold at least one level, got none'),
    ('spatial_shapes', lambda x: x[:2], ValueError, r'level_start_index must have size 2 in dimension 0'),
    ('spatial_shapes', lambda x: -x, ValueError, r'spatial_shapes must not be negative, got \(-6, -9\) for level 0'),
    ('spatial_shapes', lambda x: x + 1, ValueError, r'(level_start_index must be 70 for level 1|must add up to)'),
    ('spatial_shapes', lambda x: x.flip(0), ValueError, r'level_start_index must be 6 for level 1.*got 54'),
    ('level_start_index', lambda x: x.float(), TypeError, r'level_start_index must .*, got (torch\.float32|Float)'),
    ('level_start_index', lambda x: x[None], ValueError, r'level_start_index must have 1 dimensions'),
    ('level_start_index', lambda x: x + 1, ValueError, r'level_start_index must be 0 for level 0.*got 1'),
    ('reference_points', lambda x: x.long(), TypeError, r'reference_points must .*, got (torch\.int64|Long)'),
    ('reference_points', lambda x: x[0], ValueError, r'reference_points must have 4 dimensions'),
    ('reference_points', lambda x: x[:1], ValueError, r'reference_points must have size 2 in dimension 0'),
    ('reference_points', lambda x: x[:, :3], ValueError, r'reference_points must have size 7 in dimension 1'),
    ('reference_points', lambda x: x[:, :, :1], ValueError, r'reference_points must have size 3 in dimension 2'),
    ('reference_points', lambda x: x[..., :1], ValueError, r'reference_points must hold points \(x, y\) or boxes'),
    ('sampling_offsets', lambda x: x.bool(), TypeError, r'sampling_offsets must .*, got (torch\.bool|Bool)'),
    ('sampling_offsets', lambda x: x[0], ValueError, r'sampling_offsets must have 6 dimensions'),
    ('sampling_offsets', lambda x: x[:1], ValueError, r'sampling_offsets must have size 2 in dimension 0'),
    ('sampling_offsets', lambda x: x[:, :3], ValueError, r'sampling_offsets must have size 7 in dimension 1'),
    ('sampling_offsets', lambda x: x[:, :, :1], ValueError, r'sampling_offsets must have size 2 in dimension 2'),
    ('sampling_offsets', lambda x: x[:, :, :, :2], ValueError, r'size 3 \(the levels of spatial_shapes\) or 1'),
    ('sampling_offsets', lambda x: x[..., :0, :], ValueError, r'sampling_offsets must hold at least one point'),
    ('sampling_offsets', lambda x: x[..., :1], ValueError, r'sampling_offsets must have size 2 in dimension 5'),
]


@pytest.mark.parametrize('call', [call_function, call_operator])
@pytest.mark.parametrize('case', WRONG, ids=lambda case: f'{case[0]}-{case[3][:40]}')
def test_wrong_argument(call, case):
    name, change, error, message = case
    arguments = make_arguments(separate_key=name == 'key')
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=message):
        call(arguments)


# What is wrong with the shapes and types alone: tensors without data have no sizes of levels to compare.
WITHOUT_DATA = [case for case in WRONG if not re.search('device|add up|negative|must be [0-9]', case[3])]


@pytest.mark.parametrize('case', WITHOUT_DATA, ids=lambda case: f'{case[0]}-{case[3][:40]}')
def test_fake_kernel_checks_shapes(case):
    """What torch.compile and export trace with: it must not promise a result where the real kernel raises."""
    name, change, error, message = case
    arguments = make_arguments(separate_key=name == 'key')
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=message):
        call_operator({key: value if value is None else value.to('meta') for key, value in arguments.items()})


@pytest.mark.parametrize('name', ['query', 'value', 'key', 'spatial_shapes', 'reference_points', 'sampling_offsets'])
def test_not_a_tensor(name):
    arguments = make_arguments(separate_key=True)
    arguments[name] = [1.0]
    with pytest.raises(TypeError, match=f'{name} must be a torch.Tensor, got list'):
        key_aware_deform_attn(**arguments)


def test_sizes_whose_product_overflows():
    """2**32 * 2**32 tokens are 0 in 64 bits."""
    arguments = make_arguments(shapes=((0, 0),))
    arguments['spatial_shapes'] = torch.tensor([[2**32, 2**32]])
    for call in (call_function, call_operator):
        with pytest.raises(ValueError, match='must add up to the 0 tokens of value'):
            call(arguments)


@pytest.mark.parametrize(
    'change,error,message',
    [
        (dict(grad_output=torch.zeros(2, 7, 16)), TypeError, 'grad_output must have the dtype of query'),
        (dict(grad_output=torch.zeros(2, 7, 15).double()), ValueError, r'grad_output must have the shape'),
        (dict(logsumexp=torch.zeros(2, 7, 2)), TypeError, 'logsumexp must be a Double tensor, got Float'),
        (dict(logsumexp=torch.zeros(2, 2, 7).double()), ValueError, 'logsumexp must have the shape'),
    ],
    ids=lambda x: str(x)[:20],
)
def test_wrong_arguments_of_the_backward_pass(change, error, message):
    arguments = make_arguments()
    names = ['query', 'value', 'spatial_shapes', 'level_start_index', 'reference_points', 'sampling_offsets', 'key']
    values = dict(grad_output=torch.zeros(2, 7, 16).double(), logsumexp=torch.zeros(2, 7, 2).double())
    values.update(change)
    with pytest.raises(error, match=message):
        torch.ops.lite_detr.key_aware_deform_attn_backward(
            values['grad_output'], *[arguments[name] for name in names], values['logsumexp'], True
        )
