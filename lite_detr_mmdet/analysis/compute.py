"""Multiply-adds and parameters of a detector, in all and of each of its parts.

The counter is torch's ``FlopCounterMode``. Counted are convolutions, linear layers and matrix products, as it does,
and the core of every deformable attention: per sampled channel 4 multiply-adds of the bilinear interpolation, 1 of the
weighted sum and, in key-aware attention, 1 of the comparison with the query. Norms, activations, softmax, additions
and the arithmetic of sampling locations are not counted.

A multiply-add belongs to the part that owns the module it runs in: box branches that the decoder calls to refine its
references count as the head's, and so do those that look at the encoder's memory.
"""

from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..models.layers import KeyAwareDeformableAttention
from ..ops.flops import count_forward_macs

PARTS = ('backbone', 'neck', 'encoder', 'decoder', 'bbox_head')


def count_attention_core(module: MultiScaleDeformableAttention, query: Tensor) -> int:
    """Multiply-adds of sampling and weighing in a deformable attention, whatever code runs it.

    Args:
        module (MultiScaleDeformableAttention): The attention, key-aware or not.
        query (Tensor): Its queries, (bs, num_queries, embed_dims) or (num_queries, bs, embed_dims).
    """
    core_shape = (*query.shape[:2], module.value_proj.out_features)
    num_samples = module.num_levels * module.num_points
    if isinstance(module, KeyAwareDeformableAttention):
        return count_forward_macs(core_shape, num_samples, separate_key=module.key_proj is not None)
    return core_shape[0] * core_shape[1] * core_shape[2] * num_samples * (4 + 1)


class ComputeCounter(FlopCounterMode):
    """torch's counter, with the core of deformable attention counted by module instead of by operator.

    mmcv's CUDA operator does not pass through torch's dispatcher, and the forms in plain PyTorch are made of operators
    that are not counted: seen from the module they all cost the same.

    Args:
        model (nn.Module): The model that will be run.
    """

    def __init__(self, model: nn.Module) -> None:
        uncounted = {torch.ops.aten.grid_sampler_2d: lambda *args, **kwargs: 0}
        for name in ('key_aware_deform_attn', 'multi_scale_deform_attn'):
            if hasattr(torch.ops.lite_detr, name):
                uncounted[getattr(torch.ops.lite_detr, name)] = lambda *args, **kwargs: 0
        super().__init__(display=False, custom_mapping=uncounted)
        self.attentions = [module for module in model.modules() if isinstance(module, MultiScaleDeformableAttention)]
        self.handles = []

    def __enter__(self) -> 'ComputeCounter':
        super().__enter__()
        self.handles = [
            module.register_forward_pre_hook(self._count_core, with_kwargs=True) for module in self.attentions
        ]
        return self

    def __exit__(self, *args) -> Optional[bool]:
        for handle in self.handles:
            handle.remove()
        return super().__exit__(*args)

    def _count_core(self, module: MultiScaleDeformableAttention, args: tuple, kwargs: dict) -> None:
        flops = 2 * count_attention_core(module, kwargs['query'] if 'query' in kwargs else args[0])
        for name in self.mod_tracker.parents:
            self.flop_counts[name]['deformable attention core'] += flops

    def macs_by_module(self) -> Dict[str, int]:
        """Multiply-adds of each module that was called, with all that it called; names begin at the model."""
        return {
            name.partition('.')[2]: sum(flops.values()) // 2
            for name, flops in self.get_flop_counts().items()
            if name != 'Global'
        }


def sum_of_part(macs: Dict[str, int], part: str) -> int:
    """Multiply-adds of the modules below ``part``, each counted once."""
    inside = [name for name in macs if name.startswith(f'{part}.')]
    return sum(macs[name] for name in inside if not any(name.startswith(f'{other}.') for other in inside))


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient: torch's counter cannot follow views of one that does."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def run_model(model: nn.Module, image: Tensor) -> Tuple:
    """Run a detector on an image without padding, up to the raw outputs of its head, which are returned."""
    shape = tuple(image.shape[-2:])
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape))
    return model(image, [sample], mode='tensor')


def count_macs(model: nn.Module, shape: Sequence[int], fake: bool = True) -> Dict[str, int]:
    """Multiply-adds of the modules of a detector, by name; the whole is ''.

    Args:
        model (nn.Module): A detector in evaluation mode, on the CPU.
        shape (sequence[int]): Height and width of the image.
        fake (bool): Whether the image is a tensor without data, so that nothing is computed. Defaults to True.
    """
    image = torch.zeros(1, 3, *shape)
    if fake:
        # No mode is entered: what does not depend on the image, such as the shapes of the levels, keeps its values.
        image = FakeTensorMode(allow_non_fake_inputs=True).from_tensor(image)
    with torch.no_grad(), frozen(model), ComputeCounter(model) as counter:
        run_model(model, image)
    return counter.macs_by_module()


def missing_parts(model: nn.Module) -> List[str]:
    """Those of ``PARTS`` that a model lacks; Mask2Former, for one, has its encoder and decoder in its head."""
    return [part for part in PARTS if not isinstance(getattr(model, part, None), nn.Module)]


def check_parts(model: nn.Module) -> None:
    """Raise a ValueError if the model lacks one of ``PARTS``."""
    missing = missing_parts(model)
    if missing:
        raise ValueError(
            f'model must be a detector with {", ".join(PARTS)}; {type(model).__name__} has no {missing[0]}'
        )


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_compute(model: nn.Module, shape: Sequence[int]) -> dict:
    """Multiply-adds and parameters of a detector in inference.

    The result depends on neither the device nor the backend of the attention.

    Args:
        model (nn.Module): A detector with the modules ``PARTS``, on the CPU. It is put into evaluation mode.
        shape (sequence[int]): Height and width of the image in pixels.

    Returns:
        dict: ``gmacs`` (10^9 multiply-adds of one image) and ``params_m`` (10^6 parameters, frozen ones included),
        dictionaries with the keys ``total`` and ``PARTS``, and ``trainable_params_m``. What the detector holds outside
        of its parts is in the total only.

    Raises:
        ValueError: If the model is no such detector, or the shape is not two positive numbers that it can process.
    """
    if len(shape) != 2 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f'shape must be two positive integers, height and width, got {tuple(shape)}')
    check_parts(model)
    model.eval()
    try:
        macs = count_macs(model, shape)
    except RuntimeError:  # a host that decides by values, as DDQ with its suppression of duplicates
        try:
            macs = count_macs(model, shape, fake=False)
        except RuntimeError as error:
            raise ValueError(
                f'{type(model).__name__} cannot process a 3x{shape[0]}x{shape[1]} image: {error}'
            ) from error
    gmacs = {'total': macs[''], **{part: sum_of_part(macs, part) for part in PARTS}}
    params = {'total': count_parameters(model), **{part: count_parameters(getattr(model, part)) for part in PARTS}}
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return dict(
        gmacs={part: round(count / 1e9, 3) for part, count in gmacs.items()},
        params_m={part: round(count / 1e6, 3) for part, count in params.items()},
        trainable_params_m=round(trainable / 1e6, 3),
    )


def count_config(path: str, shape: Sequence[int], options: Optional[dict] = None) -> dict:
    """Figures of :func:`count_compute` of the model of a config.

    Args:
        path (str): Path of the config.
        shape (sequence[int]): Height and width of the image in pixels.
        options (dict, optional): Settings that override those of the config, by dotted names. Defaults to None.

    Raises:
        ValueError: If the config holds no model that can be counted.
    """
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    if 'model' not in cfg:
        raise ValueError(f'{path} must be a config with a model, it has {", ".join(cfg) or "nothing"}')
    with DefaultScope.overwrite_default_scope('mmdet'):
        return count_compute(MODELS.build(cfg.model), shape)
