"""tools/train.py: a run, what it leaves behind, resuming it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import lite_detr_mmdet  # noqa: F401  lets torch load the Runner's checkpoints

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent.parent


def largest_difference(first: Path, second: Path) -> float:
    """Largest absolute difference of two checkpoints' weights and of their optimizers' moments."""
    first, second = (torch.load(path, weights_only=True) for path in (first, second))
    assert first['state_dict'].keys() == second['state_dict'].keys()
    pairs = [(first['state_dict'][name], second['state_dict'][name]) for name in first['state_dict']]
    for name, state in first['optimizer']['state'].items():
        pairs.append((state['exp_avg'], second['optimizer']['state'][name]['exp_avg']))
    return max((one.double() - other.double()).abs().max().item() for one, other in pairs)


def test_run_leaves_checkpoints_config_and_metrics(trained):
    assert 'Epoch(train) [2][4/4]' in trained.output and 'coco/bbox_mAP:' in trained.output
    assert Path((trained.work_dir / 'last_checkpoint').read_text()) == trained.checkpoint
    cfg = Config.fromfile(next(trained.work_dir.glob('*.py')))  # the complete config, readable again
    assert cfg.model.type == 'LiteDINO' and cfg.model.num_queries == 10
    weights = torch.load(trained.checkpoint, weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


@pytest.fixture(scope='module')
def killed(tmp_path_factory, config, tiny_options) -> Path:
    """Work dir of a run that was killed with SIGKILL in the middle of its second epoch."""
    work_dir = tmp_path_factory.mktemp('killed')
    command = [sys.executable, '-u', ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir, *tiny_options]
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if 'Epoch(train) [2][1/4]' in line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert (work_dir / 'epoch_1.pth').exists() and not (work_dir / 'epoch_2.pth').exists()
    return work_dir


def test_killed_run_resumes_to_the_same_weights(killed, trained, run_tool, config, tiny_options):
    result = run_tool('tools/train.py', config, '--work-dir', killed, '--resume', *tiny_options)
    assert 'Epoch(train) [2][1/4]' in result.output and 'Epoch(train) [1]' not in result.output
    assert largest_difference(killed / 'epoch_1.pth', trained.checkpoint) > 1e-3  # the second epoch changes something
    assert largest_difference(killed / 'epoch_2.pth', trained.checkpoint) == 0


def test_resume_from_a_named_checkpoint_with_nothing_left_to_do(trained, run_tool, config, tiny_options, tmp_path):
    arguments = ('--work-dir', tmp_path, '--resume', trained.checkpoint, *tiny_options)
    result = run_tool('tools/train.py', config, *arguments)
    assert 'resumed epoch: 2' in result.output and 'Epoch(train)' not in result.output


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['no-such.py'], "'no-such.py' is not a config file that exists"),
        (['lite_detr_mmdet::lite_dino/no-such.py'], "no-such.py' is not a config of lite_detr_mmdet"),
        (
            ['CONFIG', '--resume', 'no-such.pth'],
            "must be a checkpoint file that exists or a URL, got 'no-such.pth'",
        ),
        (['CONFIG', '--auto-scale-lr', '--cfg-options', 'auto_scale_lr._delete_=True'], 'base_batch_size'),
        (['CONFIG', '--launcher', 'telepathy'], "invalid choice: 'telepathy'"),
        pytest.param(
            ['CONFIG', '--amp'],
            '--amp needs a GPU, or a CPU that computes in bfloat16',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU'),
        ),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_bad_arguments(error_of_tool, config, arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr('lite_detr_mmdet.engine.cpu_has_bfloat16', lambda: False)
    arguments = [str(config) if item == 'CONFIG' else item for item in arguments]
    assert message in error_of_tool('tools/train.py', *arguments, '--work-dir', tmp_path)


def test_options_override_the_config(trained, config):
    assert Config.fromfile(config).train_dataloader.batch_size == 4
    assert Config.fromfile(next(trained.work_dir.glob('*.py'))).train_dataloader.batch_size == 2


def test_console_is_short_and_the_file_has_everything(trained):
    lines = trained.output.splitlines()
    first = next(index for index, line in enumerate(lines) if 'Epoch(train)' in line)
    assert first <= 8, lines[:first]
    assert max(map(len, lines)) <= 250
    training = [line for line in lines if 'Epoch(train)' in line]
    assert all('loss: ' in line and 'eta: ' in line and 'lr: ' in line and 'enc_loss' not in line for line in training)
    assert not any('UserWarning' in line or 'Average Precision' in line for line in lines)
    written = next(trained.work_dir.glob('*/*.log')).read_text()
    assert 'System environment:' in written and 'Config:\n' in written
    assert written.count('enc_loss_cls: ') == written.count('Epoch(train)') == len(training)


def test_verbose_console_is_that_of_mmengine(run_tool, config, tiny_options, trained, tmp_path):
    arguments = ('--work-dir', tmp_path, '--resume', trained.checkpoint, '--verbose')
    result = run_tool('tools/train.py', config, *arguments, *tiny_options)
    assert 'System environment:' in result.output and 'Config:\n' in result.output
