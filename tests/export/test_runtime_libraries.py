"""The compiled operators as nodes in ONNX Runtime and OpenVINO compute what they compute in torch."""

import numpy as np
import pytest
import torch
from helpers.op_arguments import give_weights, make_arguments
from helpers.runtime_libraries import build_runtime_library, node_model

from lite_detr_mmdet.export import ExportableDetector, ImageFormat, verify
from lite_detr_mmdet.export.onnx_model import to_onnx
from lite_detr_mmdet.export.runners import OnnxRuntimeRunner, OpenVinoRunner
from lite_detr_mmdet.ops.reference import key_aware_deform_attn_reference, multi_scale_deform_attn_reference

for name in ('onnx', 'onnxscript', 'onnxslim'):
    pytest.importorskip(name, reason=f'{name} is not installed: pip install -r requirements/export.txt')
# One library is built for all; without one in the package that takes a minute.
pytestmark = [pytest.mark.slow, pytest.mark.process]

RUNNERS = {'onnxruntime': OnnxRuntimeRunner, 'openvino': OpenVinoRunner}
KEY_AWARE, ORDINARY = 'KeyAwareDeformAttn', 'MultiScaleDeformAttn'
CALLS = {
    'key_aware': (KEY_AWARE, {}),
    'separate_key': (KEY_AWARE, dict(separate_key=True)),
    'shared_offsets_and_boxes': (KEY_AWARE, dict(shared_offsets=True, boxes=True)),
    'ordinary': (ORDINARY, {}),
    'ordinary_boxes': (ORDINARY, dict(boxes=True)),
}


@pytest.fixture(scope='module', params=RUNNERS)
def runner(request, tmp_path_factory):
    """Makes a runner of a runtime, with the library for it."""
    pytest.importorskip(request.param)
    library = build_runtime_library(request.param, tmp_path_factory.mktemp('library'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f'LITE_DETR_{request.param.upper()}_LIBRARY', str(library))
        yield lambda model, threads=1: RUNNERS[request.param](model, threads, operators=True)


def arguments_of(call: str, dtype: torch.dtype = torch.float32, **changes) -> dict:
    """Inputs of the node; reference points stay float32, as in exported models."""
    node, options = CALLS[call]
    arguments = make_arguments(dtype=dtype, num_queries=300, num_heads=4, **{**options, **changes})
    if node == ORDINARY:
        arguments = give_weights(arguments)
    arguments['reference_points'] = arguments['reference_points'].float()
    return {name: tensor for name, tensor in arguments.items() if tensor is not None}


def arrays(arguments: dict) -> dict:
    return {name: tensor.numpy() for name, tensor in arguments.items()}


@pytest.mark.parametrize('dtype, bound', [(torch.float32, 1e-5), (torch.float16, 4e-3)])
@pytest.mark.parametrize('call', CALLS)
def test_computes_what_torch_computes(runner, call, dtype, bound):
    node = CALLS[call][0]
    arguments = arguments_of(call, dtype)
    reference = key_aware_deform_attn_reference if node == KEY_AWARE else multi_scale_deform_attn_reference
    expected = reference(**{name: t.double() if t.is_floating_point() else t for name, t in arguments.items()})
    inputs = arrays(arguments)
    found = runner(node_model(node, inputs))(inputs)['output']
    assert found.dtype == inputs['value'].dtype
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=bound)


@pytest.mark.parametrize('call', ['separate_key', 'ordinary'])
def test_threads_change_no_bit(runner, call):
    inputs = arrays(arguments_of(call))
    model = node_model(CALLS[call][0], inputs)
    one, two = (runner(model, threads)(inputs)['output'] for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    'call, name, wrong, message',
    [
        ('key_aware', 'spatial_shapes', [[6, 9], [4, 5], [2, 4]], 'spatial_shapes must add up to the 80 tokens'),
        ('key_aware', 'level_start_index', [0, 54, 75], 'level_start_index must be 74 for level 2'),
        ('separate_key', 'key', (2, 79, 4, 8), 'key must have the shape of value'),
        ('key_aware', 'reference_points', (2, 300, 3, 3), 'reference_points must hold points'),
        ('ordinary', 'attention_weights', (2, 300, 4, 3, 3), 'attention_weights must have size 2'),
        ('ordinary', 'value', (2, 80, 4), 'value must have 4 dimensions'),
    ],
)
def test_wrong_arguments_are_refused_by_name(runner, call, name, wrong, message):
    inputs = arrays(arguments_of(call))
    inputs[name] = np.array(wrong) if isinstance(wrong, list) else np.zeros(wrong, np.float32)
    with pytest.raises(Exception, match=message):
        runner(node_model(CALLS[call][0], inputs))(inputs)


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('name', ['separate_key', 'ordinary'])
def test_detectors(detector, runner, name, half):
    if not hasattr(torch.ops.lite_detr, 'multi_scale_deform_attn'):
        pytest.skip('the operators are not compiled for torch')
    images = ImageFormat(96, 128)
    model = to_onnx(ExportableDetector(detector(name), 'op', half=half), images).SerializeToString()
    made = runner(model)
    verify(detector(name), ExportableDetector(detector(name), half=half), made, lambda: made, images)
