"""One call that makes a detector fast for inference on a CPU."""

import itertools
from typing import Callable, Iterator, NamedTuple, Optional, Set, Union

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.models.layers import (
    MLP,
    DeformableDetrTransformerDecoder,
    DeformableDetrTransformerEncoder,
    DeformableDetrTransformerEncoderLayer,
)
from mmengine.logging import print_log
from torch import nn

from ..models.layers import (
    FusedMultiScaleDeformableAttention,
    KeyAwareDeformableAttention,
    LiteEncoder,
    LiteEncoderLayer,
    restore_attention,
    swap_attention,
)
from . import memory
from .attention import FastKeyAwareAttention, FastMultiheadAttention, FastMultiScaleAttention, is_plain_multihead
from .compilation import compile_parts, undo_compile, why_not_compile
from .convolutions import (
    FastConv2d,
    FastConvModule,
    FastResNet,
    FastResNetBlock,
    is_packable,
    is_plain_block,
    is_plain_conv_module,
    is_plain_resnet,
)
from .detectors import FastDeformableDETR, FastDINO, FastHead, is_known_dino, is_known_head
from .encoder import FastDecoder, FastEncoder, FastEncoderLayer, FastLiteEncoder, FastLiteEncoderLayer, is_plain_layer
from .linears import FastFFN, FastLinear, FastLinearSequence, FastMLP, fusible_steps, is_linear, is_plain_ffn
from .onednn import NONE, why_not
from .overlay import Overlay, put_over, take_off
from .report import AccelerationReport


class Rule(NamedTuple):
    """Which modules get which overlay."""

    what: str  # for the report
    hosts: tuple  # classes; a subclass with a forward of its own is left as it is
    overlay: type
    fits: Callable[[nn.Module], bool] = lambda module: True
    methods: tuple = ('forward',)  # those that the overlay replaces


def _has_activation(modules: nn.Sequential) -> bool:
    steps = fusible_steps(modules)
    return bool(steps) and any(activation is not NONE for _, activation in steps)


# The children of a module come before it: whether an encoder layer can be taken depends on its attention.
RULES = (
    Rule('linear layers by oneDNN, packed', (nn.Linear,), FastLinear, is_linear, ()),
    Rule('linear layers and activations in one', (nn.Sequential,), FastLinearSequence, _has_activation),
    Rule('multi-layer perceptrons with fused activations', (MLP,), FastMLP),
    Rule('feed-forward networks in blocks that stay in the cache', (FFN,), FastFFN, is_plain_ffn),
    Rule('convolutions by oneDNN, packed, channels last', (nn.Conv2d,), FastConv2d, is_packable, ()),
    Rule('convolutions with batch norm and activation folded in', (ConvModule,), FastConvModule, is_plain_conv_module),
    Rule(
        'residual blocks with batch norms, activations and sums folded in',
        (Bottleneck, BasicBlock),
        FastResNetBlock,
        is_plain_block,
    ),
    Rule('backbone channels last, its stem in one', (ResNet,), FastResNet, is_plain_resnet),
    Rule(
        'attention by scaled_dot_product_attention', (MultiheadAttention,), FastMultiheadAttention, is_plain_multihead
    ),
    Rule('key-aware attention with packed projections', (KeyAwareDeformableAttention,), FastKeyAwareAttention),
    Rule(
        'ordinary deformable attention with packed projections',
        (FusedMultiScaleDeformableAttention,),
        FastMultiScaleAttention,
    ),
    Rule(
        'encoder layers in blocks that stay in the cache',
        (DeformableDetrTransformerEncoderLayer,),
        FastEncoderLayer,
        is_plain_layer,
    ),
    Rule('encoder layers in blocks that stay in the cache', (LiteEncoderLayer,), FastLiteEncoderLayer, is_plain_layer),
    Rule(
        'encoder with shared memory, reference points of a shape computed once',
        (LiteEncoder,),
        FastLiteEncoder,
        methods=('forward', 'apply_layer', 'get_encoder_reference_points'),
    ),
    Rule(
        'encoder with shared memory, reference points of a shape computed once',
        (DeformableDetrTransformerEncoder,),
        FastEncoder,
        methods=('get_encoder_reference_points',),
    ),
    Rule('decoder with shared memory', (DeformableDetrTransformerDecoder,), FastDecoder, methods=()),
    Rule('last layer of the head alone', (nn.Module,), FastHead, is_known_head, ()),
    Rule(
        'positions and proposals of a shape computed once, boxes of chosen tokens alone',
        (DINO,),
        FastDINO,
        is_known_dino,
        (),
    ),
    Rule('positions and proposals of a shape computed once', (DeformableDETR,), FastDeformableDETR, methods=()),
)
# Where half precision is used. The choice of queries, the heads and the boxes stay in float32.
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16)
LOW_PRECISION_PARTS = ('backbone', 'neck', 'encoder', 'decoder.layers')


def find_rule(module: nn.Module) -> Optional[Rule]:
    """The overlay for a module, None if there is none."""
    for rule in RULES:
        for host in rule.hosts:
            if not isinstance(module, host):
                continue
            own = all(getattr(type(module), name) is getattr(host, name) for name in rule.methods)
            if own and rule.fits(module):
                return rule
    return None


def _children_first(module: nn.Module, seen: Set[int]) -> Iterator[nn.Module]:
    if id(module) in seen:
        return
    seen.add(id(module))
    for child in module.children():
        yield from _children_first(child, seen)
    yield module


def _mark_owned_inputs(model: nn.Module) -> None:
    """Let the blocks of a stage but the first write their sum over their input, which nobody else uses."""
    for stage in model.modules():
        if isinstance(stage, nn.Sequential):
            blocks = list(stage)
            for before, block in itertools.pairwise(blocks):
                if isinstance(before, FastResNetBlock) and isinstance(block, FastResNetBlock):
                    block.owns_input = True


def pack(model: nn.Module, dtype: torch.dtype, report: AccelerationReport) -> None:
    """Put the overlays over the modules of a model."""
    reason = why_not(torch.float32)
    if reason is not None:
        report.skipped['packed layers'] = reason
        return
    if dtype != torch.float32:
        reason = why_not(dtype)
        if reason is not None:
            report.skipped[str(dtype).removeprefix('torch.')] = f'{reason}; float32 is used'
            dtype = torch.float32
    low_precision = set()
    for name in LOW_PRECISION_PARTS if dtype != torch.float32 else ():
        for part in (model.get_submodule(name),) if _has(model, name) else ():
            low_precision.update(map(id, part.modules()))
    for module in _children_first(model, set()):
        if isinstance(module, Overlay):
            continue
        rule = find_rule(module)
        if rule is not None:
            put_over(module, rule.overlay)
            if id(module) in low_precision:
                module.compute_dtype = dtype
            report.changed[rule.what] += 1
    _mark_owned_inputs(model)
    if dtype != torch.float32:
        report.changed[f'{str(dtype).removeprefix("torch.")} in {", ".join(LOW_PRECISION_PARTS)}'] = 1


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def accelerate(
    model: nn.Module,
    dtype: Union[str, torch.dtype] = 'float32',
    attention: bool = True,
    compile: bool = False,
    keep_memory: bool = False,
    verbose: bool = True,
) -> nn.Module:
    """Make a detector fast for inference on a CPU, in place.

    It accepts any detector of this package or of mmdet; layers that it does not know are left unchanged, as are
    parameters and state dict. Training, gradients, other devices, tracing and export run as before, bit for bit: the
    changes take effect only in evaluation mode without gradients (``torch.no_grad`` or ``torch.inference_mode``).
    Weights may be loaded or trained afterwards. In float32, outputs agree to 1e-4. Input shapes may change.

    A second call replaces the first one; :func:`restore` undoes it.

    Args:
        model (nn.Module): A detector, or an inferencer of mmdet that holds one.
        dtype (str | torch.dtype): 'float32', or 'bfloat16' for backbone, neck, encoder and decoder layers on a
            processor that has instructions for it. Defaults to 'float32'.
        attention (bool): Run ordinary deformable attention on this package's operator, in training and on a GPU too,
            see :func:`lite_detr_mmdet.models.layers.swap_attention`; results agree to 1e-5. With False, training of
            models with ordinary attention is bitwise unchanged. Defaults to True.
        compile (bool): Instead compile backbone, neck, encoder and decoder with inductor and frozen weights at their
            first call (minutes). Weights must not change afterwards. Defaults to False: oneDNN's packed layers need
            no compiler and were faster where we measured, see ``docs/speed.md``.
        keep_memory (bool): Let the process keep the memory that it frees, which saves page faults; resident memory
            stays at its peak, for the whole process. glibc only. Defaults to False.
        verbose (bool): Print what was changed. Defaults to True.

    Returns:
        nn.Module: The detector. Its ``acceleration_report`` says what was changed and what was not, and why.

    Raises:
        TypeError: If ``model`` is not a module and does not hold one.
        ValueError: If ``dtype`` is neither float32 nor bfloat16.
    """
    if not isinstance(model, nn.Module):
        model = getattr(model, 'model', model)
    if not isinstance(model, nn.Module):
        raise TypeError(f'model must be a torch.nn.Module or an inferencer with one, got {type(model).__name__}')
    if dtype not in DTYPES and dtype not in DTYPES.values():
        raise ValueError(f'dtype must be one of {", ".join(map(repr, DTYPES))}, got {dtype!r}')
    report = AccelerationReport()
    restore(model)
    if attention:
        model.__dict__['swapped_attention'] = swap_attention(model)
        if model.swapped_attention:
            what = "ordinary deformable attention on this package's operator"
            report.changed[what] = len(model.swapped_attention)
    pack(model, DTYPES.get(dtype, dtype), report)
    if compile:
        reason = why_not_compile()
        if reason is None:
            report.changed[f'compiled by inductor when first called: {", ".join(compile_parts(model))}'] = 1
        else:
            report.skipped['torch.compile'] = reason
    if keep_memory:
        reason = memory.keep_memory()
        if reason is None:
            report.changed['freed memory stays with the process'] = 1
        else:
            report.skipped['keeping memory'] = reason
    model.acceleration_report = report
    if verbose:
        print_log(str(report), logger='current')
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`, except ``keep_memory``, which lasts as long as the process.

    Args:
        model (nn.Module): A model, accelerated or not.

    Returns:
        nn.Module: The same model.
    """
    for module in model.modules():
        take_off(module)
        module.__dict__.pop('owns_input', None)
    for name in model.__dict__.pop('swapped_attention', ()):
        restore_attention(model.get_submodule(name))
    if 'acceleration_report' in model.__dict__:
        undo_compile(model)
        del model.__dict__['acceleration_report']
    return model
