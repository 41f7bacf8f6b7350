"""Checkpoints of mmengine's Runner: read without trusting them, written whole.

mmengine reads checkpoints with ``torch.load``, which before version 2.6 runs what a file asks for, fetches addresses
by a loader that always does, and executes the text of the config that a checkpoint to resume holds. Here its loaders
get the reader of :mod:`lite_detr_mmdet.checkpoint`, resuming gets a checkpoint whose parts were checked, and saving
writes a file of plain values under a temporary name first. Nothing is added to torch's list of allowed classes.
"""

import functools
import glob
import os
import re
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Callable, List, Optional

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner
from torch import Tensor

from ..checkpoint import (
    CheckpointError,
    ConfigTextError,
    cached_weights,
    check_resumable,
    load_checkpoint_file,
    parse_config_text,
    plain_checkpoint,
    restore_histories,
    save_checkpoint_file,
)
from ..output_files import write_text

# Whether what is being loaded is to be resumed: then a config that holds code is refused, else it is left out.
_resuming: ContextVar[bool] = ContextVar('resuming', default=False)


def guard_runner_checkpoints() -> None:
    """Let mmengine's Runner read and write checkpoints by the rules of this package."""
    if getattr(Runner.resume, 'guarded', False):
        return
    schemes = mmengine_checkpoint.CheckpointLoader._schemes
    for prefix, loader in list(schemes.items()):
        own = {
            'load_from_local': load_from_local,
            'load_from_ceph': load_from_storage,
            'load_from_pavi': load_from_pavi,
        }
        schemes[prefix] = own.get(loader.__name__, loader)  # the others download, by load_url
    mmengine_checkpoint.load_url = load_url
    Runner.resume = _checked_resume(Runner.resume)
    mmengine_runner.save_checkpoint = _plain_and_whole(mmengine_checkpoint.save_checkpoint)
    mmengine_runner.find_latest_checkpoint = find_latest_checkpoint
    CheckpointHook._save_checkpoint_with_step = save_checkpoint_with_step
    CheckpointHook._save_best_checkpoint = _delete_last(CheckpointHook._save_best_checkpoint)
    CheckpointHook.before_train = _own_files_only(CheckpointHook.before_train)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Read a checkpoint for the Runner.

    Args:
        filename (str): The file.
        map_location (object): Device for the tensors; they stay on the CPU for anything but the name of one, and
            whoever loads them moves them. Defaults to None.
    """
    return read_for_runner(os.path.expanduser(filename), map_location)


def load_url(url: str, model_dir: Optional[str] = None, map_location: Any = None, **kwargs) -> dict:
    """Fetch a checkpoint for the Runner; the same as :func:`load_from_local` for addresses."""
    return read_for_runner(str(cached_weights(url)), map_location)


def load_from_storage(filename: str, map_location: Any = None, backend: str = 'petrel') -> dict:
    """Read a checkpoint of ``s3://`` or ``petrel://`` for the Runner."""
    content = get_file_backend(filename, backend_args=dict(backend=backend)).get(filename)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'checkpoint.pth'
        path.write_bytes(content)
        try:
            return read_for_runner(str(path), map_location)
        except CheckpointError as error:
            raise CheckpointError(filename, error.fault) from error


def load_from_pavi(filename: str, map_location: Any = None) -> dict:
    """Refuse ``pavi://``, whose client loads what it downloads by itself.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f'weights must be a file or a URL, got {filename!r}: download it, and name the file')


def read_for_runner(path: str, map_location: Any = None) -> dict:
    """Read a checkpoint, with log histories as mmengine knows them and without the code that its config may hold.

    Raises:
        CheckpointError: If it is refused; when it is to be resumed, also if its config holds code.
    """
    checkpoint = load_checkpoint_file(path)
    runtime_info = checkpoint.get('message_hub', {}).get('runtime_info')
    for table in (checkpoint.get('meta', {}), runtime_info if isinstance(runtime_info, dict) else {}):
        for name in ('cfg', 'config'):
            _check_config(table, name, path)
    if _resuming.get():
        check_resumable(path, checkpoint)
    try:
        restore_histories(checkpoint.get('message_hub', {}))
    except ValueError as error:
        raise CheckpointError(path, f'cannot be read as a checkpoint: {error}') from error
    if isinstance(map_location, (str, torch.device)) and torch.device(map_location).type != 'cpu':
        return _move(checkpoint, torch.device(map_location))
    return checkpoint


def _check_config(table: dict, name: str, path: str) -> None:
    if name not in table:
        return
    try:
        parsed = parse_config_text(str(table[name]))
    except ConfigTextError as error:
        if _resuming.get():
            fault = f'is refused: the config that it holds as {name!r} is not data: {error}'
            raise CheckpointError(path, fault) from error
        print_log(f'{path}: the config that it holds is left out: {error}', logger='current', level=30)
        del table[name]
        return
    if name == 'config':
        # The Runner executes this one, to compare the number of GPUs: it gets that number, as a literal.
        ids = parsed.get('gpu_ids')
        table[name] = f'gpu_ids = {list(ids)!r}' if isinstance(ids, (list, tuple, range)) else ''


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _move(item, device)
        return value
    if type(value) in (list, tuple):
        return type(value)(_move(item, device) for item in value)
    return value


def _checked_resume(original: Callable) -> Callable:
    @functools.wraps(original)
    def resume(self: Runner, filename: str, *args, **kwargs) -> None:
        token = _resuming.set(True)
        try:
            original(self, filename, *args, **kwargs)
        finally:
            _resuming.reset(token)

    resume.guarded = True
    return resume


def _plain_and_whole(original: Callable) -> Callable:
    @functools.wraps(original)
    def save_checkpoint(checkpoint: dict, filename: str, file_client_args=None, backend_args=None) -> None:
        checkpoint, left_out = plain_checkpoint(checkpoint)
        if left_out:
            print_log(
                f'{filename}: left out what could not be loaded again: {", ".join(left_out)}',
                logger='current',
                level=30,
            )
        if file_client_args is None and backend_args is None and '://' not in filename and ':s3' not in filename:
            path = Path(filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            for partial in path.parent.glob(f'.{glob.escape(path.name)}.*.partial'):
                partial.unlink(missing_ok=True)  # of a process that was killed while it wrote the same file
            save_checkpoint_file(checkpoint, path)
        else:
            original(checkpoint, filename, file_client_args=file_client_args, backend_args=backend_args)

    return save_checkpoint


def find_latest_checkpoint(path: str) -> Optional[str]:
    """The newest checkpoint of a work dir that can be resumed; broken ones are named and passed over.

    Args:
        path (str): Work dir of a run.

    Returns:
        str | None: The checkpoint, None if the work dir has none.

    Raises:
        CheckpointError: If there are checkpoints and every one of them is broken.
    """
    record = Path(path) / 'last_checkpoint'
    named = record.read_text(errors='replace').strip() if record.is_file() else ''
    candidates: List[Path] = [Path(named)] if named and '\0' not in named else []
    if not candidates or not candidates[0].is_file():
        print_log(f'{record} names no checkpoint that is there' if named else f'{record} is not there, or is empty')
    folders = {Path(path), *(candidate.parent for candidate in candidates)}
    saved = [
        file for folder in folders for file in folder.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+', file.stem)
    ]
    candidates += sorted(saved, key=lambda file: int(file.stem.split('_')[1]), reverse=True)
    tried = []
    for candidate in dict.fromkeys(file for file in candidates if file.is_file()):
        try:
            check_resumable(candidate, load_checkpoint_file(candidate))
        except CheckpointError as error:
            tried.append(candidate)
            print_log(f'passed over a broken checkpoint: {error}', logger='current', level=30)
        else:
            return str(candidate)
    if tried:
        raise CheckpointError(tried[0], f'is broken, and so is every other checkpoint of {path}: none can be resumed')
    return None


class _Remover:
    """A file backend that notes what is to be removed, and removes it when it is told to."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._outdated: List[tuple] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._outdated.append((self._backend.rmtree, path))

    def finish(self) -> None:
        for remove, path in self._outdated:
            remove(path)


def _delete_last(original: Callable) -> Callable:
    """Remove the previous best checkpoint after the new one is there."""

    @functools.wraps(original)
    def save_best_checkpoint(self: CheckpointHook, runner: Runner, metrics: dict) -> None:
        backend = self.file_backend
        self.file_backend = _Remover(backend)
        try:
            original(self, runner, metrics)
            self.file_backend.finish()
        finally:
            self.file_backend = backend

    return save_best_checkpoint


def save_checkpoint_with_step(self: CheckpointHook, runner: Runner, step: int, meta: dict) -> None:
    """Save a checkpoint, then say that it is the last one, then remove the one that is too many.

    In this order a process can be killed at any time, or the disk become full, and a whole checkpoint is there that
    ``last_checkpoint`` names.
    """
    outdated = None
    if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            outdated = self.keep_ckpt_ids.popleft()
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
    name = self.filename_tmpl.format(step)
    self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
    runner.message_hub.update_info('last_ckpt', self.last_ckpt)
    runner.save_checkpoint(
        self.out_dir,
        name,
        self.file_client_args,
        save_optimizer=self.save_optimizer,
        save_param_scheduler=self.save_param_scheduler,
        meta=meta,
        by_epoch=self.by_epoch,
        backend_args=self.backend_args,
        **self.args,
    )
    if not is_main_process():
        return
    write_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint')
    if outdated is not None:
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as deepspeed saves them
            self.file_backend.rmtree(path)


def _own_files_only(original: Callable) -> Callable:
    """Forget which checkpoints are to be removed if they are not this run's: their names come from a file."""

    @functools.wraps(original)
    def before_train(self: CheckpointHook, runner: Runner) -> None:
        info = runner.message_hub.runtime_info
        kept = info.get('keep_ckpt_ids', [])
        if not isinstance(kept, (list, tuple)) or not all(type(step) is int for step in kept):
            info.pop('keep_ckpt_ids')
        original(self, runner)
        out_dir = os.path.realpath(self.out_dir)
        for name in [name for name in info if name.startswith('best_ckpt')]:
            path = info[name]
            own = isinstance(path, str) and os.path.realpath(os.path.dirname(path) or '.') == out_dir
            if not own or not re.fullmatch(r'best_.*\.pth', os.path.basename(path)):
                print_log(
                    f'the best checkpoint of the resumed run is left alone: {path!r}', logger='current', level=30
                )
                info.pop(name)
                if getattr(self, 'best_ckpt_path', None) == path:
                    self.best_ckpt_path = None
                for key, value in getattr(self, 'best_ckpt_path_dict', {}).items():
                    if value == path:
                        self.best_ckpt_path_dict[key] = None

    return before_train
