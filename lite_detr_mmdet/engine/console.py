"""A short console: one line for each log interval. The log file still gets everything.

mmengine prints some 600 lines before the first iteration (environment, config, order of hooks) and every loss of every
decoder layer in each line.
"""

import contextlib
import functools
import io
import logging
import re
from typing import Any, Callable, List, TextIO, Tuple

from mmengine.evaluator import Evaluator
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import BaseLoop, LogProcessor, Runner
from tqdm import tqdm

# Beginnings of what only the log file gets.
FILE_ONLY = (
    '\n' + '-' * 60 + '\nSystem environment:',
    'Config:\n',
    'Hooks will be executed in the following order:',
    'Distributed training is not used',
    'paramwise_options',
    'Exp name:',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Failed to search registry with scope "mmdet" in the "function"',
    'LR is set based on batch size',
    'Evaluating bbox...',
    'bbox_mAP_copypaste:',
)
SHOWN_IN_TRAINING = ('lr', 'base_lr', 'eta', 'time', 'memory', 'loss')


class LogLine(str):
    """A line of the log file that knows its short form.

    Attributes:
        short (str): What the console shows.
    """

    short: str

    def __new__(cls, text: str, short: str) -> 'LogLine':
        line = super().__new__(cls, text)
        line.short = short
        return line


@LOG_PROCESSORS.register_module()
class ShortLogProcessor(LogProcessor):
    """mmengine's ``LogProcessor``, whose training lines have a short form for the console."""

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> Tuple[dict, str]:
        """Values, and the line with its short form: place, learning rate, end of training, time, loss."""
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != 'train':
            return tag, LogLine(text, '') if mode == 'val' else text  # a validation's result follows
        head, *items = text.split('  ')
        kept = [item for item in items if item.partition(':')[0] in SHOWN_IN_TRAINING]
        return tag, LogLine(text, '  '.join([head, *kept]))


class ShortFormatter(logging.Formatter):
    """Formats the short form of a line, if it has one.

    Args:
        formatter (logging.Formatter): Formats the rest.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """A line of the console."""
        short = getattr(record.msg, 'short', None)
        if short is not None:
            record = logging.makeLogRecord({**record.__dict__, 'msg': short})
        return self.formatter.format(record)


class AboveProgressBar:
    """A stream, written above the progress bar if there is one.

    Args:
        stream (TextIO): Standard output, say.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write text."""
        if getattr(tqdm, '_instances', None):
            tqdm.write(text, file=self.stream, end='')
        else:
            self.stream.write(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def is_for_console(record: logging.LogRecord) -> bool:
    """Whether the console shows a record."""
    if getattr(record.msg, 'short', None) == '':
        return False
    return record.levelno > logging.WARNING or not str(record.msg).startswith(FILE_ONLY)


def shorten_console(logger: logging.Logger) -> None:
    """Let the console handlers of a logger show short lines only; handlers of files stay as they are."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(is_for_console)
            handler.setFormatter(ShortFormatter(handler.formatter or logging.Formatter()))
            handler.stream = AboveProgressBar(handler.stream)


class ShortRunner(Runner):
    """mmengine's ``Runner`` with a short console."""

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """The logger, before anything was logged."""
        logger = super().build_logger(*args, **kwargs)
        shorten_console(logger)
        return logger

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load weights; what does not fit is counted in one line, and listed in the log file."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        text = printed.getvalue().strip()
        self.logger.info(LogLine(text, f'weights of {filename}: {summarize_fit(text)}'))
        weights = checkpoint.get('state_dict', checkpoint)
        fitting = len(weights) - count_unfit(text)
        if 2 * fitting < len(weights):
            self.logger.warning(
                f'only {fitting} of the {len(weights)} weights of {filename} fit: it seems to be of another model'
            )
        return checkpoint

    def build_evaluator(self, *args: Any, **kwargs: Any) -> Evaluator:
        """The evaluator, without the lines that pycocotools prints when it reads a file."""
        return without_prints(super().build_evaluator)(*args, **kwargs)

    def build_val_loop(self, *args: Any, **kwargs: Any) -> BaseLoop:
        """The loop; the table that pycocotools prints after each validation repeats what is logged."""
        loop = super().build_val_loop(*args, **kwargs)
        loop.evaluator.evaluate = without_prints(loop.evaluator.evaluate)
        return loop


def _unfit(text: str) -> Tuple[List[str], List[str], List[str]]:
    """Names of weights with another shape, missing and unused, in what mmengine prints."""
    other_shape = re.findall(r'^size mismatch for (\S+):', text, re.MULTILINE)
    missing = re.findall(r'^missing keys in source state_dict: (.*)', text, re.MULTILINE)
    unused = re.findall(r'^unexpected key in source state_dict: (.*)', text, re.MULTILINE)
    return (
        other_shape,
        [name for line in missing for name in line.split(', ')],
        [name for line in unused for name in line.split(', ')],
    )


def count_unfit(text: str) -> int:
    """Number of the weights of a file that were not loaded, from what mmengine prints."""
    other_shape, _, unused = _unfit(text)
    return len(other_shape) + len(unused)


def summarize_fit(text: str) -> str:
    """In one line, what mmengine prints of weights that do not fit."""
    told = ('have another shape and start anew', 'are missing and start anew', 'are not used')
    found = zip(_unfit(text), told)
    parts = [f'{len(names)} {what}, e.g. {names[0]}' for names, what in found if names]
    return '; '.join(parts) or 'all fit'


def without_prints(function: Callable) -> Callable:
    """A function whose ``print`` calls go nowhere; what it logs is shown."""

    @functools.wraps(function)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return function(*args, **kwargs)

    return quiet
