"""Fixtures of tests that run the tools: a generated set of a few images, a model of seconds, how to run a script."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.fork_server import run_script

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'lite_dino' / 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
NUM_TRAIN, NUM_VAL, SIZE = 8, 4, 64


@pytest.fixture(scope='session')
def run_tool():
    """Run a script of this repository in a process of its own, with what is printed as ``output``."""

    def run(script, *arguments, check: bool = True, **env) -> subprocess.CompletedProcess:
        if str(script).endswith('.py'):
            result = run_script(ROOT / script, *arguments, merge=True, **env)
        else:
            result = subprocess.run(
                ['bash', str(ROOT / script), *map(str, arguments)],
                env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
        result.output = result.stdout
        assert not check or result.returncode == 0, result.output
        return result

    return run


@pytest.fixture
def error_of_tool(monkeypatch, capsys):
    """Run a Python script of this repository in this process and return the last line that it fails with."""

    def run(script, *arguments) -> str:
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as error:
            runpy.run_path(str(ROOT / script), run_name='__main__')
        assert error.value.code not in (0, None)
        # A message in SystemExit is printed by the interpreter, argparse prints its own.
        return error.value.code if isinstance(error.value.code, str) else capsys.readouterr().err.splitlines()[-1]

    return run


@pytest.fixture(scope='session')
def shapes(tmp_path_factory, run_tool) -> Path:
    """A generated set of 8 training and 4 validation images of 64x64 pixels."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    sizes = ('--num-train', NUM_TRAIN, '--num-val', NUM_VAL, '--size', SIZE)
    run_tool('tools/dataset_converters/generate_shapes.py', root, *sizes)
    return root


@pytest.fixture(scope='session')
def tiny_options(shapes) -> list:
    """``--cfg-options`` that make the quickstart's model and schedule a matter of seconds."""
    options = ['--cfg-options', 'model.num_queries=10', 'model.test_cfg.max_per_img=10']
    options += ['model.backbone.base_channels=8', 'model.neck.in_channels=[16,32,64]', 'model.decoder.num_layers=1']
    options += ['model.dn_cfg.group_cfg.num_dn_queries=4', 'train_dataloader.batch_size=2']
    options += ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1']
    # Full learning rate from the first step: two runs must not look equal because hardly anything happened.
    options += ['param_scheduler.0.end=1', 'optim_wrapper.optimizer.lr=0.001']
    for split in ('train', 'val', 'test'):
        options.append(f'{split}_dataloader.dataset.data_root={shapes}/')
    for split in ('val', 'test'):
        options.append(f'{split}_dataloader.dataset.pipeline.1.scale=({SIZE},{SIZE})')
        options.append(f'{split}_evaluator.ann_file={shapes}/annotations/val.json')
    return options


@pytest.fixture(scope='session')
def trained(tmp_path_factory, run_tool, tiny_options) -> SimpleNamespace:
    """A finished training run of two epochs: ``work_dir``, ``checkpoint`` and ``output``."""
    work_dir = tmp_path_factory.mktemp('trained')
    result = run_tool('tools/train.py', CONFIG, '--work-dir', work_dir, *tiny_options)
    return SimpleNamespace(work_dir=work_dir, checkpoint=work_dir / 'epoch_2.pth', output=result.output)


@pytest.fixture
def port() -> str:
    """A port that is free."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


@pytest.fixture(scope='session')
def config() -> Path:
    """The config that the tools are run with."""
    return CONFIG
