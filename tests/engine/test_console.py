"""The console's short forms, and the progress bar."""

import io
import logging
from types import SimpleNamespace

from lite_detr_mmdet.engine import ProgressBarHook, shorten_console, summarize_fit
from lite_detr_mmdet.engine.console import LogLine, count_unfit


def test_console_and_file(tmp_path):
    shown = io.StringIO()
    logger = logging.Logger('test')
    logger.addHandler(logging.StreamHandler(shown))
    logger.addHandler(logging.FileHandler(tmp_path / 'log'))
    shorten_console(logger)
    for message in (LogLine('long', 'short'), LogLine('for the file', ''), 'Config:\nmodel = 1', 'as it is'):
        logger.info(message)
    logger.error('Config:\nbroken')
    assert shown.getvalue() == 'short\nas it is\nConfig:\nbroken\n'
    text = (tmp_path / 'log').read_text()
    assert text == 'long\nfor the file\nConfig:\nmodel = 1\nas it is\nConfig:\nbroken\n'


def test_weights_that_do_not_fit():
    assert summarize_fit('Loads checkpoint by local backend from path: a.pth\n') == 'all fit'
    text = 'size mismatch for a.weight: copying\nsize mismatch for b: copying\n'
    text += 'unexpected key in source state_dict: c, d, e\n\nmissing keys in source state_dict: f\n'
    assert summarize_fit(text) == (
        '2 have another shape and start anew, e.g. a.weight; 1 are missing and start anew, e.g. f; '
        '3 are not used, e.g. c'
    )
    assert count_unfit(text) == 5 and count_unfit('') == 0


def test_progress_bar(capsys):
    hook = ProgressBarHook(show=True)
    runner = SimpleNamespace(max_iters=4, iter=1, epoch=0, max_epochs=2, val_dataloader=[0, 1])
    hook.before_train(runner)
    for _ in range(3):
        hook.after_train_iter(runner, 0, outputs=dict(loss=2.5))
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5})
    hook.after_train_iter(runner, 0, outputs=dict(loss=1.5))
    assert 'loss 1.50, bbox_mAP 0.250' in str(hook.bar) and 'epoch 1/2' in str(hook.bar)
    assert hook.bar.n == 5 and hook.bar.total == 4
    hook.after_train(runner)
    hook.after_run(runner)
    assert hook.bar is None and 'validation' in capsys.readouterr().err


def test_no_bar_without_a_terminal(capsys):
    hook = ProgressBarHook()  # pytest's standard error is none
    runner = SimpleNamespace(max_iters=4, iter=0, epoch=0, max_epochs=1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, outputs={})
    hook.after_train(runner)
    assert capsys.readouterr().err == ''
