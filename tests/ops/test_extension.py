"""The choice of the backend, with and without the compiled operators."""

import os
import subprocess
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from helpers.op_arguments import make_arguments

from lite_detr_mmdet.ops import backend, extension, key_aware_deform_attn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without_extension(monkeypatch):
    monkeypatch.setattr(extension, 'LOAD_ERROR', 'the operators are not compiled')
    backend._warn_once.cache_clear()


def run_python(code: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, 'LITE_DETR_OPS_ONLY': '1', 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])}
    return subprocess.run(
        [sys.executable, '-c', code], env={**env, **environment}, capture_output=True, text=True, cwd=cwd
    )


def test_extension_is_compiled():
    """All other tests of the compiled operator depend on it: an installation without it must not pass silently."""
    assert extension.LOAD_ERROR is None, extension.explain_missing()


def test_library_of_other_sources_is_not_used(monkeypatch):
    inputs = {**extension.INPUTS, 'key_aware_deform_attn': ('query', 'value', 'key')}
    monkeypatch.setattr(extension, 'INPUTS', inputs)
    assert 'was built from other sources than these: its key_aware_deform_attn' in extension.load_library()
    monkeypatch.setattr(extension, 'INPUTS', {'no_such_operator': ()})
    assert 'its no_such_operator has other inputs' in extension.load_library()


def test_auto_is_fused():
    arguments = make_arguments(dtype=torch.float32)
    fused = key_aware_deform_attn(**arguments, backend='fused')
    assert torch.equal(key_aware_deform_attn(**arguments), fused)
    assert not torch.equal(key_aware_deform_attn(**arguments, backend='reference'), fused)


def test_variable_replaces_auto(monkeypatch):
    arguments = make_arguments(dtype=torch.float32)
    reference = key_aware_deform_attn(**arguments, backend='reference')
    fused = key_aware_deform_attn(**arguments, backend='fused')
    monkeypatch.setenv('LITE_DETR_BACKEND', 'reference')
    assert torch.equal(key_aware_deform_attn(**arguments), reference)
    assert torch.equal(key_aware_deform_attn(**arguments, backend='fused'), fused)
    monkeypatch.setenv('LITE_DETR_BACKEND', 'fast')
    with pytest.raises(ValueError, match="LITE_DETR_BACKEND must be one of 'auto', 'fused', 'reference', got 'fast'"):
        key_aware_deform_attn(**arguments)


def test_unknown_backend():
    with pytest.raises(ValueError, match="backend must be one of 'auto', 'fused', 'reference', got 'cuda'"):
        key_aware_deform_attn(**make_arguments(), backend='cuda')


def test_fused_without_extension(without_extension):
    with pytest.raises(RuntimeError, match=r'not available for cpu: the operators are not compiled.*pip install'):
        key_aware_deform_attn(**make_arguments(), backend='fused')


def test_auto_without_extension_warns_once(without_extension):
    arguments = make_arguments()
    expected = key_aware_deform_attn(**arguments, backend='reference')
    with pytest.warns(UserWarning, match='plain PyTorch on cpu.*pip install'):
        output = key_aware_deform_attn(**arguments)
    assert torch.equal(output, expected)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        key_aware_deform_attn(**arguments)
        key_aware_deform_attn(**arguments, backend='reference')


def test_library_that_cannot_be_loaded(tmp_path, monkeypatch):
    library = tmp_path / f'_C{EXTENSION_SUFFIXES[0]}'
    library.write_bytes(b'not a library')
    monkeypatch.setattr(extension, 'find_library', lambda: str(library))
    assert 'cannot be loaded by torch' in extension.load_library()
    assert str(library) in extension.load_library()


def test_library_of_this_interpreter(tmp_path):
    """A stale build for another Python beside it is not taken."""
    for suffix in ('.cpython-30-x86_64-linux-gnu.so', '.cp30-win_amd64.pyd'):
        (tmp_path / f'_C{suffix}').touch()
    assert extension.find_library(str(tmp_path)) is None
    for suffix in reversed(EXTENSION_SUFFIXES):  # the most specific name last
        (tmp_path / f'_C{suffix}').touch()
        assert extension.find_library(str(tmp_path)) == str(tmp_path / f'_C{suffix}')


def test_dispatcher_is_asked_once(monkeypatch):
    calls = []
    monkeypatch.setattr(torch._C, '_dispatch_has_kernel_for_dispatch_key', lambda *args: calls.append(args) or True)
    extension._is_registered.cache_clear()
    assert extension.has_kernel('cpu') and extension.has_kernel('cpu') and len(calls) == 1


def test_package_without_library(tmp_path):
    """A copy of the package without the compiled library works, and says what is missing."""
    package = tmp_path / 'lite_detr_mmdet'
    (package / 'ops').mkdir(parents=True)
    for path in [*(ROOT / 'lite_detr_mmdet').glob('*.py'), *(ROOT / 'lite_detr_mmdet' / 'ops').glob('*.py')]:
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())
    code = (
        'import runpy, warnings; from helpers.op_arguments import make_arguments\n'
        'from lite_detr_mmdet.ops import key_aware_deform_attn\n'
        'key_aware_deform_attn(**make_arguments())\n'
        "runpy.run_module('lite_detr_mmdet.ops', run_name='__main__')"
    )
    result = run_python(code, cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT / 'tests')]))
    assert result.returncode == 0, result.stderr
    assert 'cpu: no: the operators are not compiled' in result.stdout
    assert (
        'build: pip install' in result.stdout and 'backend of key_aware_deform_attn on cpu: reference' in result.stdout
    )
    assert result.stderr.count('runs in plain PyTorch on cpu') == 1  # of the call; the report says it in its own words


def test_report():
    result = run_python("import runpy; runpy.run_module('lite_detr_mmdet.ops', run_name='__main__')")
    assert result.returncode == 0, result.stderr
    assert f'cpu: yes, instruction set {torch.ops.lite_detr.cpu_capability()}' in result.stdout
    assert f'torch: {torch.__version__}' in result.stdout


# Values and gradients of the kernels for one instruction set; each process chooses one for good.
CAPABILITY_CODE = """
import torch
from helpers.op_arguments import give_weights, make_arguments, run_with_gradients
from helpers.tolerances import GRADIENT_RELATIVE_L2, relative_l2
from lite_detr_mmdet.ops import key_aware_deform_attn, multi_scale_deform_attn


def check(function, arguments, dtype):
    expected, expected_grads = run_with_gradients(function, arguments, backend='reference')
    output, grads = run_with_gradients(function, arguments, backend='fused')
    assert relative_l2(output, expected) < GRADIENT_RELATIVE_L2[dtype], (dtype, head_dim)
    for key, grad in grads.items():
        assert relative_l2(grad, expected_grads[key]) < GRADIENT_RELATIVE_L2[dtype], (dtype, head_dim, key)


for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for head_dim in (16, 20, 32, 64):
        for variant in (dict(), dict(separate_key=True, boxes=True, shared_offsets=True)):
            arguments = make_arguments(
                head_dim=head_dim, num_points=4, num_queries=None, dtype=dtype,
                location_dtype=torch.float32 if dtype.itemsize == 2 else dtype, **variant
            )
            check(key_aware_deform_attn, arguments, dtype)
            check(multi_scale_deform_attn, give_weights(arguments), dtype)
# Samples at the centres of pixels return them: all finite float16 numbers, subnormal ones and both zeros.
numbers = torch.arange(-2**15, 2**15).to(torch.int16).view(torch.float16)
numbers = numbers[numbers.isfinite()][: 63 * 1000].view(63, 1, 1000, 1, 1).expand(-1, -1, -1, -1, 20).contiguous()
for value in numbers:
    output = key_aware_deform_attn(
        query=torch.zeros_like(value), value=value, backend='fused',
        spatial_shapes=torch.tensor([[1, 1000]]), level_start_index=torch.tensor([0]),
        reference_points=torch.zeros(1, 1000, 1, 2),
        sampling_offsets=(torch.arange(1000) + 0.5)[:, None].expand(-1, 2).clamp(max=torch.tensor([1e9, 0.5]))
        .view(1, 1000, 1, 1, 1, 2),
    )
    assert torch.equal(output, value.flatten(2))
print(torch.ops.lite_detr.cpu_capability())
"""


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_lower_instruction_sets(capability):
    result = run_python(CAPABILITY_CODE, LITE_DETR_CPU_CAPABILITY=capability)
    assert result.returncode == 0, result.stderr
    available = ('default', 'avx2', torch.ops.lite_detr.cpu_capability())
    assert result.stdout.strip() in available[: available.index(capability) + 1]


def test_unknown_instruction_set():
    result = run_python(
        'import lite_detr_mmdet.ops, torch; torch.ops.lite_detr.cpu_capability()', LITE_DETR_CPU_CAPABILITY='sse9'
    )
    assert result.returncode != 0
    assert 'LITE_DETR_CPU_CAPABILITY must be default, avx2 or avx512, got sse9' in result.stderr
