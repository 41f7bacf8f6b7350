"""One call that makes a detector fast for inference on a CPU."""

from typing import Callable, Iterator, NamedTuple, Optional, Set, Union

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.models.layers import MLP, DeformableDetrTransformerEncoder, DeformableDetrTransformerEncoderLayer
from mmengine.logging import print_log
from torch import nn

from ..models.layers import KeyAwareDeformableAttention, LiteEncoder, LiteEncoderLayer
from .attention import FastKeyAwareAttention, FastMultiheadAttention, is_plain_multihead
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
from .detectors import FastDeformableDETR, FastDINO, FastHead, is_known_head
from .encoder import FastEncoder, FastEncoderLayer, FastLiteEncoderLayer, is_plain_layer
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
    Rule(
        'convolutions with batch norm and activation folded in', (ConvModule,), FastConvModule, is_plain_conv_module
    ),
    Rule(
        'residual blocks with batch norms, activations and sums folded in',
        (Bottleneck, BasicBlock),
        FastResNetBlock,
        is_plain_block,
    ),
    Rule('backbone channels last, its stem in one', (ResNet,), FastResNet, is_plain_resnet),
    Rule('attention by scaled_dot_product_attention', (MultiheadAttention,), FastMultiheadAttention, is_plain_multihead),
    Rule('key-aware attention with packed projections', (KeyAwareDeformableAttention,), FastKeyAwareAttention),
    Rule(
        'encoder layers in blocks that stay in the cache',
        (DeformableDetrTransformerEncoderLayer,),
        FastEncoderLayer,
        is_plain_layer,
    ),
    Rule(
        'encoder layers in blocks that stay in the cache', (LiteEncoderLayer,), FastLiteEncoderLayer, is_plain_layer
    ),
    Rule(
        'reference points of a shape computed once',
        (DeformableDetrTransformerEncoder, LiteEncoder),
        FastEncoder,
        methods=('get_encoder_reference_points',),
    ),
    Rule('last layer of the head alone', (nn.Module,), FastHead, is_known_head, ()),
    Rule(
        'positions and proposals of a shape computed once, boxes of chosen tokens alone',
        (DINO,),
        FastDINO,
        methods=(),
    ),
    Rule('positions and proposals of a shape computed once', (DeformableDETR,), FastDeformableDETR, methods=()),
)
# Where half precision is used. The choice of queries, the heads and the boxes stay in float32.
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
            for before, block in zip(blocks, blocks[1:]):
                if isinstance(before, FastResNetBlock) and isinstance(block, FastResNetBlock):
                    block.owns_input = True


def pack(model: nn.Module, dtype: torch.dtype, report: AccelerationReport) -> None:
    """Put the overlays over the modules of a model."""
    reason = why_not(torch.float32) or why_not(dtype)
    if reason is not None:
        report.skipped['packed layers'] = reason
        return
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
    model: nn.Module, dtype: Union[str, torch.dtype] = torch.float32, verbose: bool = True
) -> nn.Module:
    """Make a detector fast for inference, in place.
    """
    report = AccelerationReport()
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    restore(model)
    pack(model, dtype, report)
    model.acceleration_report = report
    if verbose:
        print_log(str(report), logger='current')
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`."""
    for module in model.modules():
        take_off(module)
        module.__dict__.pop('owns_input', None)
    model.__dict__.pop('acceleration_report', None)
    return model
