"""Run a detector's deformable attention on this package's operator, with one line in a config."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..models.layers.fused_attention import swap_attention


@HOOKS.register_module()
class FusedAttentionHook(Hook):
    """Run every ``MultiScaleDeformableAttention`` of the model fused, in training, validation and test.

    Use it for detectors whose layers build mmcv's class whatever the config says, as mmdet's do:
    ``custom_hooks = [dict(type='FusedAttentionHook')]``. Checkpoints are the same with and without it.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Swap the attention, see :func:`lite_detr_mmdet.models.layers.fused_attention.swap_attention`."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        changed = swap_attention(model)
        if changed:  # a Lite detector that inherits the hook has nothing to swap
            runner.logger.info(f'FusedAttentionHook: {len(changed)} attention modules run fused')
