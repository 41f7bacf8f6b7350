"""A progress bar for training and validation, in a terminal."""

import sys
from typing import Any, Dict, Optional

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Show a bar of all training iterations with epoch, loss, last AP and remaining time, and one of each validation.

    ``tools/train.py`` adds it to every config. Where standard error is no terminal, as in a batch job, nothing is
    drawn.

    Args:
        show (bool, optional): Whether to draw. Defaults to None: in a terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, show: Optional[bool] = None) -> None:
        self.show = sys.stderr.isatty() if show is None else show
        self.bar: Optional[tqdm] = None
        self.val_bar: Optional[tqdm] = None
        self.metric = ''

    def before_train(self, runner: Runner) -> None:
        """Draw the bar; a resumed run begins where it was stopped."""
        self.bar = self._make(runner.max_iters, 'training', True, initial=runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance."""
        if self.bar is None:
            return
        self.bar.set_description(f'epoch {runner.epoch + 1}/{runner.max_epochs}', refresh=False)
        loss = outputs.get('loss') if isinstance(outputs, dict) else None
        words = [f'loss {float(loss):.2f}'] if loss is not None else []
        self.bar.set_postfix_str(', '.join([*words, *([self.metric] if self.metric else [])]), refresh=False)
        self.bar.update()

    def before_val_epoch(self, runner: Runner) -> None:
        """Draw a bar that disappears after validation."""
        self.val_bar = self._make(len(runner.val_dataloader), 'validation', False)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance."""
        if self.val_bar is not None:
            self.val_bar.update()

    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Keep the AP for the bar of training."""
        self._close('val_bar')
        found = {name: value for name, value in (metrics or {}).items() if name.endswith('mAP')}
        self.metric = ', '.join(f'{name.rpartition("/")[2]} {value:.3f}' for name, value in found.items())

    def after_train(self, runner: Runner) -> None:
        """Leave the finished bar."""
        self._close('bar')

    def after_run(self, runner: Runner) -> None:
        """Close what a failed loop left."""
        self._close('val_bar')
        self._close('bar')

    def _make(self, total: int, name: str, leave: bool, initial: int = 0) -> Optional[tqdm]:
        if not self.show or not is_main_process():
            return None
        return tqdm(total=total, initial=initial, desc=name, leave=leave, dynamic_ncols=True, file=sys.stderr)

    def _close(self, name: str) -> None:
        bar = getattr(self, name)
        if bar is not None:
            bar.close()
            setattr(self, name, None)
