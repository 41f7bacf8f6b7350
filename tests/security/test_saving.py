"""Checkpoints appear whole or not at all, whenever the process dies; broken ones are passed over."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.fork_server import ROOT, run_script
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from mmengine.runner import runner as mmengine_runner

from lite_detr_mmdet.checkpoint import CheckpointError, check_target, load_checkpoint_file, save_checkpoint_file

# Kills itself while the first checkpoint is written: half of it on the disk, all of it under the temporary name, or
# under its own name before `last_checkpoint` says so.
KILLED = """
import os, runpy, signal, sys, torch
moment, script = sys.argv[1], sys.argv[2]
sys.argv = sys.argv[2:]
import lite_detr_mmdet
save, replace = torch.save, os.replace

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(content, file, **kwargs):
    save(content, file, **kwargs)
    file.flush()
    file.truncate(file.tell() // 2)
    os.fsync(file.fileno())
    die()

def replaced(source, target):
    if str(target).endswith('.pth') and moment == 'whole':
        die()
    replace(source, target)
    if str(target).endswith('.pth'):
        die()

if moment == 'half':
    torch.save = half
else:
    os.replace = replaced
runpy.run_path(script, run_name='__main__')
"""


@pytest.mark.slow
def test_three_kills_while_writing_change_nothing(trained, config, tiny_options, run_tool, tmp_path):
    options = [*tiny_options, 'default_hooks.checkpoint.max_keep_ckpts=1']
    killed = tmp_path / 'killed.py'
    killed.write_text(KILLED)
    for moment in ('half', 'whole', 'named'):
        words = (ROOT / 'tools' / 'train.py', config, '--work-dir', tmp_path, '--resume', *options)
        result = run_script(killed, moment, *words)
        assert result.returncode == -signal.SIGKILL, result.stdout + result.stderr
        assert not (tmp_path / 'last_checkpoint').exists()
        assert (tmp_path / 'epoch_1.pth').exists() == (moment == 'named')
    result = run_tool('tools/train.py', config, '--work-dir', tmp_path, '--resume', *options)
    assert 'resumed epoch: 1' in result.output and 'Epoch(train) [1]' not in result.output
    first, second = (load_checkpoint_file(path) for path in (trained.checkpoint, tmp_path / 'epoch_2.pth'))
    assert all(torch.equal(value, second['state_dict'][name]) for name, value in first['state_dict'].items())
    for index, state in first['optimizer']['state'].items():
        assert torch.equal(state['exp_avg'], second['optimizer']['state'][index]['exp_avg'])
    assert not (tmp_path / 'epoch_1.pth').exists() and not list(tmp_path.glob('.*.partial'))


def test_checkpoints_of_this_package_need_nothing_to_be_read(trained):
    """torch alone reads them: no numpy, no class of mmengine."""
    code = f'import torch; print(sorted(torch.load({str(trained.checkpoint)!r}, weights_only=True)))'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert "'state_dict'" in result.stdout, result.stderr


def test_histories_are_resumed(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 3], max_length=7)
    message_hub = dict(log_scalars=dict(loss=history), runtime_info=dict(n=np.int64(3), v=object()), resumed_keys={})
    content = dict(meta=dict(epoch=1, iter=2), state_dict={}, message_hub=message_hub)
    mmengine_runner.save_checkpoint(content, str(tmp_path / 'a.pth'))
    plain = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert plain['message_hub']['runtime_info'] == dict(n=3)  # what has no plain form is left out
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    hub = MessageHub.get_instance('restored')
    hub.load_state_dict(loaded['message_hub'])
    assert hub.get_scalar('loss').mean() == history.mean() and hub.get_scalar('loss').max_length == 7
    hub.update_scalar('loss', 3.0)
    assert hub.get_scalar('loss').current() == 3.0


def test_what_a_killed_process_left_is_removed(tmp_path):
    left, other = tmp_path / '.a[1].pth.x7.partial', tmp_path / '.b.pth.x7.partial'
    left.write_bytes(b'half'), other.write_bytes(b'half')
    mmengine_runner.save_checkpoint(dict(meta={}), str(tmp_path / 'a[1].pth'))
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / 'a[1].pth']


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt()])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint_file(dict(a=torch.ones(1)), path)
    before = path.read_bytes()

    def save(content, file):
        file.write(b'half')
        raise error

    monkeypatch.setattr(torch, 'save', save)
    with pytest.raises(type(error)):
        save_checkpoint_file(dict(a=torch.zeros(1)), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def resumable(epoch: int) -> dict:
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    return dict(meta=dict(epoch=epoch, iter=epoch), state_dict=dict(w=torch.ones(100)), message_hub=hub)


def test_broken_checkpoints_are_passed_over(tmp_path, monkeypatch):
    lines = []
    from lite_detr_mmdet.compat import runner_checkpoints

    monkeypatch.setattr(runner_checkpoints, 'print_log', lambda text, **kwargs: lines.append(text))
    find = mmengine_runner.find_latest_checkpoint
    assert find(str(tmp_path)) is None
    for epoch in (2, 9, 10):
        save_checkpoint_file(resumable(epoch), tmp_path / f'epoch_{epoch}.pth')
    record = tmp_path / 'last_checkpoint'
    for text in (str(tmp_path / 'epoch_10.pth'), '', '/no/such/file', 'a\0b', '\xff'):
        record.write_text(text)
        assert find(str(tmp_path)) == str(tmp_path / 'epoch_10.pth')
    (tmp_path / 'epoch_10.pth').write_bytes((tmp_path / 'epoch_10.pth').read_bytes()[:-100])
    torch.save(dict(meta=dict(epoch='x')), tmp_path / 'epoch_9.pth')
    lines.clear()
    assert find(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    assert [line for line in lines if 'epoch_10.pth' in line] and [line for line in lines if 'epoch_9.pth' in line]
    (tmp_path / 'epoch_2.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match='every other checkpoint'):
        find(str(tmp_path))


def make_hook(tmp_path, **kwargs):
    """A hook with a runner that writes a small file instead of a checkpoint."""
    runner = SimpleNamespace(
        work_dir=str(tmp_path), epoch=0, iter=0, message_hub=MessageHub.get_instance(f'hub {tmp_path}')
    )
    runner.logger = SimpleNamespace(info=lambda text: None, warning=lambda text: None)

    def save(out_dir, filename, *args, **kwargs):
        if runner.fails:
            raise OSError(errno.ENOSPC, 'No space left on device')
        Path(out_dir, filename).write_text('new')

    runner.save_checkpoint, runner.fails = save, False
    return CheckpointHook(interval=1, **kwargs), runner


def test_previous_checkpoint_goes_last(tmp_path):
    hook, runner = make_hook(tmp_path, max_keep_ckpts=1, save_best='acc', rule='greater')
    hook.before_train(runner)
    hook._save_checkpoint_with_step(runner, 1, {})
    runner.epoch = 1
    hook._save_best_checkpoint(runner, dict(acc=0.5))
    assert {path.name for path in tmp_path.glob('*.pth')} == {'epoch_1.pth', 'best_acc_epoch_1.pth'}
    runner.epoch, runner.fails = 2, True
    with pytest.raises(OSError):
        hook._save_checkpoint_with_step(runner, 2, {})
    with pytest.raises(OSError):
        hook._save_best_checkpoint(runner, dict(acc=0.6))
    assert {path.name for path in tmp_path.glob('*.pth')} == {'epoch_1.pth', 'best_acc_epoch_1.pth'}
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    hook, runner = make_hook(tmp_path, max_keep_ckpts=1, save_best='acc', rule='greater')
    hook.before_train(runner)
    hook.keep_ckpt_ids.clear(), hook.keep_ckpt_ids.append(1)
    hook._save_checkpoint_with_step(runner, 3, {})
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_3.pth')
    assert not (tmp_path / 'epoch_1.pth').exists()


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_resumed_file_does_not_say_what_is_deleted(tmp_path, kind):
    """A best checkpoint is removed when a better one comes; its name is in the file that is resumed."""
    victim = tmp_path / 'victim'
    victim.mkdir() if kind == 'folder' else victim.write_text('mine')
    run = tmp_path / 'run'
    run.mkdir()
    hook, runner = make_hook(run, max_keep_ckpts=1, save_best='acc', rule='greater')
    for name, value in dict(best_ckpt=str(victim), best_score=0.1, keep_ckpt_ids=['../../victim', '/x']).items():
        runner.message_hub.update_info(name, value)
    hook.before_train(runner)
    hook._save_checkpoint_with_step(runner, 1, {})
    hook._save_best_checkpoint(runner, dict(acc=0.9))
    assert victim.exists() and (run / 'best_acc_epoch_0.pth').exists()


def test_files_are_not_written_through_links_or_over_their_source(tmp_path):
    real, link = tmp_path / 'real.pth', tmp_path / 'link.pth'
    save_checkpoint_file(dict(a=torch.ones(1)), real)
    before = real.read_bytes()
    link.symlink_to(real)
    os.link(real, tmp_path / 'twin.pth')
    with pytest.raises(FileExistsError, match='must not be a link'):
        save_checkpoint_file({}, link)
    for target, fault in ((real, 'another file than the source'), (tmp_path / 'twin.pth', 'another file')):
        with pytest.raises(FileExistsError, match=fault):
            check_target(real, target, overwrite=True)
    (tmp_path / 'other.pth').write_text('x')
    with pytest.raises(FileExistsError, match='already exists'):
        check_target(real, tmp_path / 'other.pth')
    check_target(real, tmp_path / 'other.pth', overwrite=True)
    assert real.read_bytes() == before
