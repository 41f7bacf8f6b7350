"""RT-DETR of the transformers library, as installed and given the treatment that accelerated detectors get."""

import itertools
from typing import Callable, Dict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lite_detr_mmdet.acceleration import accelerate

NAME = 'RT-DETR R50 (transformers)'


def fold_batch_norms(model: nn.Module) -> None:
    """Fold the frozen batch norms of RT-DETR into the convolutions before them, in place."""
    for module in model.modules():
        children = list(module.named_children())
        for (_, conv), (name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and hasattr(norm, 'running_mean'):
                conv.weight, conv.bias = torch.nn.utils.fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    norm.running_mean,
                    norm.running_var,
                    getattr(norm, 'eps', 1e-5),
                    norm.weight,
                    norm.bias,
                )
                setattr(module, name, nn.Identity())


def rt_detr_calls(inputs: Tensor, autocast: Callable, accelerated: bool = False) -> Dict[str, Callable]:
    """Calls of RT-DETR with ResNet-50, random weights and its defaults (300 queries).

    Its levels must halve without remainder, so the image is padded to multiples of 32.

    Args:
        inputs (Tensor): Images, (bs, 3, H, W).
        autocast (Callable): Makes a context for each call.
        accelerated (bool): Give two further forms: compiled by inductor with frozen weights, and with batch norms
            folded and :func:`lite_detr_mmdet.accelerate`'s packed layers, both from images that are channels last.
            A form whose outputs are not those of the first has that in its name: inductor, when limited to AVX2,
            gave NaN. Defaults to False.

    Returns:
        dict[str, Callable]: By name.
    """
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    inputs = F.pad(inputs, (0, -inputs.shape[3] % 32, 0, -inputs.shape[2] % 32))
    last = inputs.contiguous(memory_format=torch.channels_last)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return RTDetrForObjectDetection(RTDetrConfig(anchor_image_size=None)).to(inputs.device).eval()

    def call(model: Callable, pixel_values: Tensor) -> Callable:
        def run() -> Tensor:
            with torch.no_grad(), autocast():
                return model(pixel_values=pixel_values).logits

        return run

    calls = {NAME: call(build(), inputs)}
    if accelerated:
        calls[f'{NAME}, compiled and frozen'] = call(torch.compile(build(), options=dict(freezing=True)), last)
        packed = build()
        fold_batch_norms(packed)
        calls[f'{NAME}, folded and packed'] = call(accelerate(packed, verbose=False), last)
        # Sorted: of tokens with nearly equal scores, each form chooses others first.
        outputs = {name: run().flatten().sort().values for name, run in calls.items()}
        for name, output in outputs.items():
            if not (output - outputs[NAME]).abs().max() < 1e-2:  # NaN is wrong too
                calls[f'{name}, WRONG OUTPUT'] = calls.pop(name)
    return calls
