"""What mmengine's hook saves and removes: in which order, and never what a resumed file merely names."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import CheckpointLoader
from mmengine.runner import runner as mmengine_runner

from lite_detr_mmdet.checkpoint import save_checkpoint_file
from lite_detr_mmdet.compat import runner_checkpoints


@pytest.fixture
def make_hook(tmp_path, request):
    """Make a hook and its runner; checkpoints are files that hold 'new'."""

    def make(out_dir: Path, resumed: dict, **kwargs):
        hub = MessageHub.get_instance(f'{request.node.nodeid} {len(MessageHub._instance_dict)}')
        for name, value in resumed.items():
            hub.update_info(name, value)
        runner = SimpleNamespace(work_dir=str(out_dir), epoch=3, iter=3, message_hub=hub)
        runner.logger = SimpleNamespace(info=lambda text: None, warning=lambda text: None)
        runner.save_checkpoint = lambda out_dir, filename, *args, **kwargs: Path(out_dir, filename).write_text('new')
        hook = CheckpointHook(interval=1, rule='greater', **kwargs)
        hook.before_train(runner)
        return hook, runner

    return make


RESUMED = dict(best_score=0.1, best_score_acc=0.1, best_score_loss=0.1)


@pytest.mark.parametrize(
    'name, own',
    [
        ('run/best_acc_epoch_1.pth', True),
        ('link/best_acc_epoch_1.pth', True),  # the same folder by another name
        ('run/notes.pth', False),
        ('run/best_notes.txt', False),
        ('other/best_acc_epoch_1.pth', False),
        ('run_other/best_acc_epoch_1.pth', False),
        ('run/../other/best_acc_epoch_1.pth', False),
        (3, False),
    ],
)
@pytest.mark.parametrize('several', [False, True], ids=['one metric', 'two metrics'])
def test_only_best_checkpoints_of_the_run_are_replaced(tmp_path, make_hook, name, own, several):
    for folder in ('run', 'other', 'run_other'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'run')
    path = f'{tmp_path}/{name}' if isinstance(name, str) else name
    if isinstance(name, str):
        Path(path).write_text('old')
    key = 'best_ckpt_acc' if several else 'best_ckpt'
    save_best = ['acc', 'loss'] if several else 'acc'
    hook, runner = make_hook(tmp_path / 'run', {**RESUMED, key: path}, save_best=save_best)
    assert (key in runner.message_hub.runtime_info) == own
    assert (hook.best_ckpt_path_dict['acc'] if several else hook.best_ckpt_path) == (path if own else None)
    hook._save_best_checkpoint(runner, dict(acc=0.9, loss=0.0))
    assert (tmp_path / 'run' / 'best_acc_epoch_3.pth').read_text() == 'new'
    if isinstance(name, str):
        assert Path(path).exists() != own


@pytest.mark.parametrize('kept', [['../../victim'], 5, [True], 'abc'], ids=str)
def test_names_of_old_checkpoints_are_numbers(tmp_path, make_hook, kept):
    assert list(make_hook(tmp_path, dict(keep_ckpt_ids=kept), max_keep_ckpts=2)[0].keep_ckpt_ids) == []
    assert list(make_hook(tmp_path, dict(keep_ckpt_ids=[1, 2]), max_keep_ckpts=2)[0].keep_ckpt_ids) == [1, 2]


def test_old_checkpoint_may_be_a_folder(tmp_path, make_hook):
    """As deepspeed saves them."""
    hook, runner = make_hook(tmp_path, dict(keep_ckpt_ids=[1]), max_keep_ckpts=1)
    (tmp_path / 'epoch_1.pth').mkdir()
    (tmp_path / 'epoch_1.pth' / 'part').touch()
    hook._save_checkpoint_with_step(runner, 2, {})
    assert {path.name for path in tmp_path.iterdir()} == {'epoch_2.pth', 'last_checkpoint'}


def test_one_process_of_several_writes_what_is_last(tmp_path, make_hook, monkeypatch):
    hook, runner = make_hook(tmp_path, dict(keep_ckpt_ids=[1]), max_keep_ckpts=1)
    (tmp_path / 'epoch_1.pth').touch()
    monkeypatch.setattr(runner_checkpoints, 'is_main_process', lambda: False)
    hook._save_checkpoint_with_step(runner, 2, {})
    assert {path.name for path in tmp_path.iterdir()} == {'epoch_1.pth', 'epoch_2.pth'}


def test_removing_waits_for_the_new_best_checkpoint():
    calls = []
    names = ('remove', 'rmtree')
    backend = SimpleNamespace(**{name: lambda path, name=name: calls.append((name, path)) for name in names}, other=3)
    hook = SimpleNamespace(file_backend=backend)

    def save(hook, runner, metrics):
        hook.file_backend.remove('a')
        hook.file_backend.rmtree('b')
        assert calls == [] and hook.file_backend.other == 3
        if metrics is None:
            raise OSError

    saved = runner_checkpoints._delete_last(save)
    with pytest.raises(OSError):
        saved(hook, None, None)
    assert calls == [] and hook.file_backend is backend
    saved(hook, None, {})
    assert calls == [('remove', 'a'), ('rmtree', 'b')] and hook.file_backend is backend


def test_other_files_in_the_folder_of_a_run(tmp_path):
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    content = dict(meta=dict(epoch=1, iter=1), state_dict={}, message_hub=hub)
    for name in ('epoch_1.pth', 'best_acc_epoch_2.pth', 'mine.pth', 'epoch_x.pth'):
        save_checkpoint_file(content, tmp_path / name)
    for record in (b'\xff\xfe', b'a\0/b.pth', b'/no/such/folder/b.pth'):
        (tmp_path / 'last_checkpoint').write_bytes(record)
        assert mmengine_runner.find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('value, text', [('[0, 1]', 'gpu_ids = [0, 1]'), ('3', ''), ('"import os"', '')])
def test_number_of_devices_is_all_that_is_left_of_a_config(tmp_path, value, text):
    torch.save(dict(meta=dict(config=f'gpu_ids = {value}\na = 1')), tmp_path / 'a.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))['meta']['config'] == text
