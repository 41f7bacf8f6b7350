"""Scripts of the tests' fork server behave as in an interpreter of their own."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.fork_server import ROOT, run_script, start_server

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere scripts run in interpreters of their own'),
]

SCRIPT = """
import atexit, os, signal, subprocess, sys, threading, time
print(sys.argv, os.getcwd(), sys.path[0], __name__, os.environ.get('GREETING'), sys.stdin.read())
print(os.getppid(), len(os.listdir('/proc/self/task')), os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)
print('an error', file=sys.stderr)
atexit.register(print, 'at exit')
threading.Timer(0.1, print, ['a thread']).start()
ends = dict(
    code=lambda: sys.exit(7), text=lambda: sys.exit('reason'), error=lambda: 1 / 0,
    signal=lambda: os.kill(os.getpid(), signal.SIGTERM), sleep=lambda: subprocess.run(['sleep', sys.argv[2]]),
)
ends.get(sys.argv[1], int)()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'folder' / 'script.py'
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def test_what_a_script_sees(script, tmp_path):
    result = run_script(script, 'well', cwd=tmp_path, GREETING='hello')
    first, second, *others = result.stdout.splitlines()
    assert first == f'{[str(script), "well"]} {tmp_path} {script.parent} __main__ hello '
    # One thread: of a second one, the fork would have nothing but its locks.
    assert second == f'{start_server().process.pid} 1 {os.environ["GOMP_SPINCOUNT"]} True'
    assert others == ['a thread', 'at exit'] and result.stderr == 'an error\n' and result.returncode == 0
    merged = run_script(script, 'well', merge=True)
    assert merged.stderr is None and 'an error' in merged.stdout.splitlines() and os.getcwd() in merged.stdout


@pytest.mark.parametrize('name', ['LD_LIBRARY_PATH', 'LITE_DETR_BACKEND', 'MPLCONFIGDIR', 'TORCHINDUCTOR_CACHE_DIR'])
def test_what_libraries_and_tests_set_in_this_process_is_not_seen(tmp_path, monkeypatch, name):
    path = tmp_path / 'script.py'
    path.write_text(f"import os; print(os.getppid(), os.environ.get('{name}'))")
    monkeypatch.setenv(name, 'changed')
    parent, value = run_script(path).stdout.split()
    assert int(parent) == start_server().process.pid and value != 'changed'


@pytest.mark.parametrize(
    'end, returncode, last',
    [('code', 7, 'an error'), ('text', 1, 'reason'), ('error', 1, 'ZeroDivisionError: division by zero')],
)
def test_ends(script, end, returncode, last):
    result = run_script(script, end)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (returncode, last)
    assert result.stdout.endswith('at exit\n')


def test_signals(script):
    assert run_script(script, 'signal').returncode == -15


def commands() -> list:
    """The words of all that runs."""
    found = []
    for file in Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):  # it has ended
            found.append(file.read_text().split('\0'))
    return found


def test_timeout_ends_what_the_script_started(script):
    seconds = str(1000 + os.getpid())
    with pytest.raises(subprocess.TimeoutExpired):
        run_script(script, 'sleep', seconds, timeout=2)
    deadline = time.monotonic() + 10
    while any(seconds in words for words in commands()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(seconds in words for words in commands())
    assert run_script(script, 'well').returncode == 0


def test_module(tmp_path):
    (tmp_path / 'mine.py').write_text('import sys; print(__name__, sys.argv[1:], sys.path[0])')
    result = run_script('-m', 'mine', 'word', cwd=tmp_path)
    assert result.stdout == f"__main__ ['word'] {tmp_path}\n"


def test_variables_that_are_read_at_start_get_an_interpreter(script):
    result = run_script(script, 'well', OMP_NUM_THREADS='2', GOMP_SPINCOUNT='5')
    pid, *others = result.stdout.splitlines()[1].split()
    assert int(pid) == os.getpid() and others[1:] == ['5', 'False']
    assert result.args[0] == sys.executable


def test_a_script_changes_nothing_for_the_next(tmp_path):
    path = tmp_path / 'script.py'
    path.write_text("""
import os, sys, numpy, torch
print('mine' in sys.path, os.environ.get('MINE'), hasattr(torch, 'mine'), numpy.random.rand())
sys.path.append('mine')
os.environ['MINE'] = torch.mine = 'yes'
""")
    first, second = (run_script(path, cwd=ROOT).stdout.split() for _ in range(2))
    assert first[:3] == second[:3] == ['False', 'None', 'False'] and first[3] != second[3]
