"""Gradients of the compiled operator: against finite differences, in half precision, and run after run."""

import itertools

import pytest
import torch
from helpers.op_arguments import DIFFERENTIABLE, make_arguments, move_into_cells, run_with_gradients
from helpers.tolerances import GRADIENT_RELATIVE_L2, RELATIVE_L2, cosine, relative_bias, relative_l2

from lite_detr_mmdet.ops import key_aware_deform_attn


@pytest.mark.parametrize('backend', ['fused', 'reference'])
@pytest.mark.parametrize('boxes,separate_key', list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize('head_dim,num_points', [(3, 2), (16, 4)])
def test_gradcheck(backend, boxes, separate_key, head_dim, num_points):
    arguments = move_into_cells(
        make_arguments(
            bs=1,
            shapes=((3, 4), (2, 2)),
            num_queries=2,
            head_dim=head_dim,
            num_points=num_points,
            boxes=boxes,
            separate_key=separate_key,
        )
    )
    arguments['reference_points'][..., 2:] += 0.3
    arguments = move_into_cells(arguments)
    names = [name for name in DIFFERENTIABLE if arguments.get(name) is not None]

    def function(*tensors):
        return key_aware_deform_attn(**dict(arguments, **dict(zip(names, tensors))), backend=backend)

    assert torch.autograd.gradcheck(
        function, [arguments[name].requires_grad_() for name in names], eps=1e-6, atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradients(dtype):
    """Against float64 from the same rounded inputs: error, direction and bias."""
    arguments = make_arguments(
        shapes=((20, 23), (10, 12)),
        num_queries=None,
        num_heads=4,
        head_dim=32,
        num_points=4,
        dtype=dtype,
        location_dtype=torch.float32,
    )
    exact = {
        key: tensor.double() if tensor is not None and tensor.is_floating_point() else tensor
        for key, tensor in arguments.items()
    }
    grad_output = torch.randn(2, 580, 128).to(dtype)
    expected, expected_grads = run_with_gradients(key_aware_deform_attn, exact, grad_output, backend='reference')
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, grad_output, backend='fused')
    for actual, wanted in [(output, expected)] + [(grads[key], expected_grads[key]) for key in grads]:
        assert relative_l2(actual, wanted) < GRADIENT_RELATIVE_L2[dtype]
        assert cosine(actual, wanted) > 1 - GRADIENT_RELATIVE_L2[dtype] ** 2
        assert abs(relative_bias(actual, wanted)) < GRADIENT_RELATIVE_L2[dtype] / 10


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('separate_key', [False, True])
def test_bitwise_deterministic(dtype, separate_key):
    """Over runs and numbers of threads; 5 and 40 of them share out heads and levels differently."""
    arguments = make_arguments(
        shapes=((30, 33), (15, 17)),
        num_queries=None,
        num_heads=3,
        head_dim=32,
        num_points=4,
        dtype=dtype,
        location_dtype=torch.float32,
        separate_key=separate_key,
        spread=4.0,
    )
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2, 5, 40):
            torch.set_num_threads(threads)
            results.append(run_with_gradients(key_aware_deform_attn, arguments, backend='fused'))
    finally:
        torch.set_num_threads(before)
    for output, grads in results[1:]:
        assert torch.equal(output, results[0][0])
        for key, grad in grads.items():
            assert torch.equal(grad, results[0][1][key]), key


def test_only_wanted_gradients_are_returned():
    arguments = make_arguments()
    arguments['value'].requires_grad_()
    key_aware_deform_attn(**arguments, backend='fused').sum().backward()
    assert arguments['value'].grad.abs().sum() > 0
    assert arguments['query'].grad is None and arguments['sampling_offsets'].grad is None


def test_no_second_derivative():
    arguments = make_arguments()
    arguments['value'].requires_grad_()
    output = key_aware_deform_attn(**arguments, backend='fused')
    (grad,) = torch.autograd.grad(output.square().sum(), arguments['value'], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative: use backend='reference'"):
        grad.sum().backward()


def test_inputs_changed_before_the_backward_pass_are_noticed():
    arguments = make_arguments()
    arguments['value'].requires_grad_()
    output = key_aware_deform_attn(**arguments, backend='fused')
    arguments['query'].add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        output.sum().backward()


def test_memory_of_the_forward_pass():
    """Nothing but the output and the log-sum-exp is allocated."""
    from torch.profiler import ProfilerActivity, profile

    arguments = make_arguments(num_queries=None, shapes=((40, 40),), head_dim=32, num_points=4, dtype=torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, torch.no_grad():
        output = key_aware_deform_attn(**arguments, backend='fused')
    allocated = sum(event.self_cpu_memory_usage for event in profiler.events() if event.self_cpu_memory_usage > 0)
    logsumexp_bytes = 4 * output[..., 0].numel() * 2
    assert allocated <= output.numel() * 4 + logsumexp_bytes + 1024


def test_no_forward_mode_derivative():
    """Without a word, torch would drop the tangent."""
    arguments = make_arguments()
    value = arguments.pop('value')

    def function(tensor, backend):
        return key_aware_deform_attn(value=tensor, **arguments, backend=backend)

    with pytest.raises(NotImplementedError, match=r"no forward-mode derivative.*backend='reference'"):
        torch.func.jvp(lambda tensor: function(tensor, 'fused'), (value,), (torch.ones_like(value),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(value, torch.ones_like(value))
        with pytest.raises(NotImplementedError, match='no forward-mode derivative'):
            function(dual, 'fused')
        function(value, 'fused')  # nothing here has a tangent


@pytest.mark.parametrize('boxes', [False, True])
def test_forward_mode_derivative_of_the_reference(boxes):
    arguments = move_into_cells(make_arguments(bs=1, shapes=((3, 4), (2, 2)), num_queries=2, boxes=boxes))
    names = [name for name in DIFFERENTIABLE if arguments.get(name) is not None]

    def function(*tensors):
        return key_aware_deform_attn(**dict(arguments, **dict(zip(names, tensors))), backend='reference')

    inputs = tuple(arguments[name] for name in names)
    tangents = tuple(torch.randn_like(tensor) for tensor in inputs)
    output, tangent = torch.func.jvp(function, inputs, tangents)
    assert relative_l2(output, function(*inputs)) < RELATIVE_L2[torch.float64]
    step = 1e-6
    ahead, behind = (function(*[x + sign * step * t for x, t in zip(inputs, tangents)]) for sign in (1, -1))
    assert relative_l2(tangent, (ahead - behind) / (2 * step)) < 1e-6
