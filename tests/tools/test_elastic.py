"""Two machines, played by two torchrun agents on this one: a worker dies, training goes on by itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.tools import ROOT

from lite_detr_mmdet.checkpoint import load_checkpoint_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason='the processes would need a GPU each'),
]
TIMEOUT = 400


def start_agents(config, options, work_dir: Path, port: str, **env) -> list:
    """Start ``dist_train.sh`` twice, with a worker each, as on two machines."""
    processes = []
    for rank in range(2):
        log = (work_dir / f'agent_{rank}.log').open('w')
        command = ['bash', ROOT / 'tools' / 'dist_train.sh', config, 1, '--work-dir', work_dir, '--resume', *options]
        variables = dict(PYTHON=sys.executable, PYTHONPATH=str(ROOT), NNODES='2', NODE_RANK=str(rank), PORT=port)
        variables.update(MASTER_ADDR='127.0.0.1', LOCAL_ADDR='127.0.0.1', GLOO_SOCKET_IFNAME='lo')
        processes.append(
            subprocess.Popen(
                list(map(str, command)), env={**os.environ, **variables, **env}, stdout=log, stderr=subprocess.STDOUT
            )
        )
    return processes


def logs(work_dir: Path) -> str:
    return '\n'.join((work_dir / f'agent_{rank}.log').read_text(errors='replace') for rank in range(2))


def finish(processes, work_dir: Path) -> None:
    try:
        codes = [process.wait(TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], logs(work_dir)[-5000:]


def workers_of(agent: subprocess.Popen) -> list:
    """Processes of ``train.py`` that an agent started."""
    children = Path(f'/proc/{agent.pid}/task/{agent.pid}/children').read_text().split()
    return [int(pid) for pid in children if b'train.py' in Path(f'/proc/{pid}/cmdline').read_bytes()]


def test_killed_worker_is_started_again_and_ends_with_the_same_weights(config, tiny_options, tmp_path, port):
    options = [*tiny_options, 'train_dataloader.batch_size=1', 'train_cfg.max_epochs=3', 'train_cfg.val_interval=3']
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    whole.mkdir(), killed.mkdir()
    finish(start_agents(config, options, whole, port), whole)

    agents = start_agents(config, options, killed, port, MAX_RESTARTS='3', RDZV_ID='killed')
    try:
        deadline = time.monotonic() + TIMEOUT
        while not (killed / 'last_checkpoint').exists() and time.monotonic() < deadline:
            assert all(agent.poll() is None for agent in agents), logs(killed)[-5000:]
            time.sleep(0.05)
        (worker,) = workers_of(agents[1])
        os.kill(worker, signal.SIGKILL)
    except BaseException:
        for agent in agents:
            agent.kill()
        raise
    finish(agents, killed)

    output = logs(killed)
    assert re.search(r'exitcode: -9|Signal 9|SIGKILL', output), output[-5000:]
    assert 'resumed epoch: ' in output
    first, second = (load_checkpoint_file(folder / 'epoch_3.pth') for folder in (whole, killed))
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
    start = load_checkpoint_file(whole / 'epoch_2.pth')['state_dict']
    assert not torch.equal(start['level_embed'], first['state_dict']['level_embed'])
