"""Log what key-aware deformable attention attends to while it is trained."""

import math
from typing import Any, Dict, List

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..models.layers.attention_call import key_aware_inputs, read_attention_call
from ..models.layers.key_aware_deformable_attention import KeyAwareDeformableAttention
from ..ops.reference import compare, get_all_sampling_points, sample


@torch.no_grad()
def attention_statistics(
    query: Tensor,
    key: Tensor,
    spatial_shapes: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
) -> Dict[str, float]:
    """Statistics of the weights and of the samples of key-aware deformable attention, means over queries and heads.

    Args:
        query (Tensor): Projected queries, (bs, num_queries, num_heads, head_dim).
        key (Tensor): Projected keys, (bs, num_value, num_heads, head_dim).
        spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
        reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4), normalised.
        sampling_offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2).

    Returns:
        dict[str, float]: ``entropy`` of the weights as a share of the largest possible one (1: all samples weigh the
        same, 0: one has all the weight); ``share_l``, the weight of level l; ``reach``, the distance of a sample from
        its reference point in tokens of its level; ``outside``, the share of samples that touch no token.
    """
    points, shapes = get_all_sampling_points(spatial_shapes, reference_points, sampling_offsets, torch.float32)
    weights = compare(query.float(), sample(key.float(), points, shapes)).squeeze(1)
    entropy = torch.special.entr(weights).sum(-1).mean() / max(math.log(weights.shape[-1]), 1e-12)
    shares = weights.unflatten(-1, (len(shapes), -1)).sum(-1).mean((0, 1))
    outside = torch.stack([(level == -2).all(-1).float().mean() for level in points]).mean()
    statistics = dict(entropy=entropy.item(), reach=_reach(spatial_shapes, reference_points, sampling_offsets).item())
    statistics['outside'] = outside.item()
    statistics.update({f'share_{level}': share.item() for level, share in enumerate(shares)})
    return statistics


def _reach(spatial_shapes: Tensor, reference_points: Tensor, sampling_offsets: Tensor) -> Tensor:
    """Mean length of the offsets in tokens of their levels."""
    offsets = sampling_offsets.float()
    if reference_points.shape[-1] == 4:  # in half boxes, shared out over the points
        size = spatial_shapes.flip(-1).to(offsets)[None, None, None, :, None]
        boxes = reference_points[:, :, None, :, None, 2:].float()
        offsets = offsets * boxes * size * (0.5 / offsets.shape[4])
    return offsets.norm(dim=-1).mean()


@HOOKS.register_module()
class AttentionStatisticsHook(Hook):
    """Log statistics of every ``KeyAwareDeformableAttention`` of the model: see :func:`attention_statistics`.

    They are scalars such as ``kda/encoder.layers.0.self_attn/entropy`` in ``scalars.json``, the log file and
    TensorBoard. The fused operator keeps running; the weights of some queries are worked out beside it. Use it as
    ``custom_hooks = [dict(type='AttentionStatisticsHook', interval=50)]``.

    Args:
        interval (int): Iterations between two sets of statistics; that of the logger fits. Defaults to 50.
        num_queries (int): Queries of each module to look at, evenly spread. Defaults to 256.
    """

    priority = 'NORMAL'  # before the logger

    def __init__(self, interval: int = 50, num_queries: int = 256) -> None:
        if interval < 1 or num_queries < 1:
            raise ValueError(f'interval and num_queries must be at least 1, got {interval} and {num_queries}')
        self.interval = interval
        self.num_queries = num_queries
        self.active = False
        self.found: Dict[str, Dict[str, float]] = {}
        self.handles: List[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Listen to the modules.

        Raises:
            ValueError: If the model has no such module.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        modules = [(name, part) for name, part in model.named_modules() if type(part) is KeyAwareDeformableAttention]
        if not modules:
            raise ValueError('AttentionStatisticsHook needs a model with KeyAwareDeformableAttention, got one without')
        for name, module in modules:
            self.handles.append(module.register_forward_pre_hook(self._listen(name), with_kwargs=True))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Look at this iteration, or not."""
        self.active = self.every_n_train_iters(runner, self.interval)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Hand the statistics to the logger."""
        for name, statistics in self.found.items():
            for key, value in statistics.items():
                runner.message_hub.update_scalar(f'train/kda/{name}/{key}', value)
        self.found = {}
        self.active = False

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _listen(self, name: str) -> Any:
        def listen(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if self.active:
                self.found[name] = self._measure(module, *args, **kwargs)

        return listen

    @torch.no_grad()
    def _measure(self, module: KeyAwareDeformableAttention, *args: Any, **kwargs: Any) -> Dict[str, float]:
        call = read_attention_call(module, *args, **kwargs)
        count = call.query.shape[1]
        chosen = torch.linspace(0, count - 1, min(self.num_queries, count), device=call.query.device).long()
        call = call.of_queries(chosen)
        query, key, offsets = key_aware_inputs(module, call)
        return attention_statistics(query, key, call.spatial_shapes, call.reference_points, offsets)
