"""tools/dist_train.sh and tools/dist_test.sh with two processes on CPUs."""

import json
import os

import pytest
import torch

import lite_detr_mmdet  # noqa: F401  lets torch load the Runner's checkpoints

pytestmark = pytest.mark.process


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='the processes would need a GPU each')
def test_two_processes_train_and_test(run_tool, config, tiny_options, tmp_path, port):
    options = [*tiny_options, 'train_dataloader.batch_size=1']
    result = run_tool('tools/dist_train.sh', config, 2, '--work-dir', tmp_path / 'train', *options, PORT=port)
    assert 'Epoch(train) [2][4/4]' in result.output  # 8 images, a batch of one in each of two processes
    written = next((tmp_path / 'train').glob('*/*.log')).read_text()
    assert 'Distributed training: True' in written and 'GPU number: 2' in written
    weights = torch.load(tmp_path / 'train' / 'epoch_2.pth', weights_only=True)['state_dict']
    assert not any(name.startswith('module.') for name in weights)
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
    scalars = next((tmp_path / 'train').glob('*/vis_data/scalars.json'))
    expected = json.loads(scalars.read_text().splitlines()[-1])

    result = run_tool(
        'tools/dist_test.sh', config, tmp_path / 'train' / 'epoch_2.pth', 2, '--work-dir', tmp_path / 'test',
        *options, PORT=port,
    )  # fmt: skip
    metrics = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())
    assert metrics['coco/bbox_mAP'] == expected['coco/bbox_mAP']
    assert metrics['coco/bbox_mAP_50'] == expected['coco/bbox_mAP_50']


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_usage(run_tool, script):
    result = run_tool(f'tools/{script}', check=False)
    assert result.returncode == 2 and f'{script} ' in result.output


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_slurm_command(run_tool, script, tmp_path):
    """What srun is asked for and what it is to start."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    arguments = ('gpus', 'my job', 'config.py', 'third', '--cfg-options', 'a=1')
    result = run_tool(f'tools/{script}', *arguments, PATH=path, GPUS='16', SRUN_ARGS='--mem 8G')
    words = result.output.splitlines()
    assert words[:2] == ['-p', 'gpus'] and '--job-name=my job' in words and '--ntasks=16' in words
    assert words[words.index('--mem') + 1] == '8G'
    tool = next(index for index, word in enumerate(words) if word.endswith('.py') and word != 'config.py')
    third = ['--work-dir', 'third'] if script == 'slurm_train.sh' else ['third']
    assert words[tool + 1 :] == ['config.py', *third, '--launcher', 'slurm', '--cfg-options', 'a=1']
