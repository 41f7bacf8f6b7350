"""Run scripts in forks of a process that has imported torch and mmdet, as if each had an interpreter of its own.

Most tests of tools start one, and importing torch and mmdet takes longer than all else that the tool does for a test.
The server, this file as a script, imports them once and does nothing more: it starts no thread and computes nothing,
since neither would survive a fork. A fork leaves the loop of :func:`serve` and runs the script at the end of this
file, in the main thread, so that exit codes, tracebacks, signals and ``atexit`` are the interpreter's own.

A fork cannot show what is imported at all, nor what depends on variables that are read while modules are imported or
libraries loaded (``READ_AT_START``): :func:`run_script` starts an interpreter where it is given one of them, and tests
of imports, packages and launchers start their own. ``--help`` of each tool is tested in a real process, too.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Dict, List, Optional, Union

ROOT = Path(__file__).resolve().parents[2]
READ_AT_START = (
    'GOMP_',
    'KMP_',
    'LD_',
    'LITE_DETR_',
    'MALLOC_',
    'MKL_',
    'MPL',
    'OMP_',
    'OPENBLAS_',
    'PYTHON',
    'TORCH',
)
# As it is before the tests. What is read at start stays so for all scripts: libraries set some of it in the process
# that loads them (OpenCV, matplotlib, torch's compiler), and tests set some for themselves.
ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable}
PRELOADED = (
    'lite_detr_mmdet',  # first, as in the tools
    'lite_detr_mmdet.analysis',
    'lite_detr_mmdet.apis',
    'lite_detr_mmdet.utils',
    'mmdet.apis',
    'torch._dynamo',  # which the first optimizer imports
)


def read_at_start(environment: Dict[str, str]) -> Dict[str, str]:
    """The variables of an environment that a fork cannot change."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def run_script(
    *words: Union[str, os.PathLike],
    cwd: Union[str, os.PathLike, None] = None,
    timeout: float = 300,
    merge: bool = False,
    **variables: str,
) -> subprocess.CompletedProcess:
    """Run ``python words``, a script of this repository or a module after ``-m``; PYTHONPATH is the repository.

    Args:
        words (str | PathLike): The script, or ``-m`` and a module, and the arguments.
        cwd (str | PathLike, optional): Folder to run in.
        timeout (float): Seconds after which it is killed. Defaults to 300.
        merge (bool): Whether ``stdout`` of the result has the errors, too. Defaults to False.
        variables (str): Variables of the environment that differ from those of this process. What is read at start
            (``READ_AT_START``) differs from what it was before the tests by these alone.

    Raises:
        subprocess.TimeoutExpired: If it takes longer.
    """
    changeable = {name: value for name, value in os.environ.items() if not name.startswith(READ_AT_START)}
    environment = {**changeable, **read_at_start(ENVIRONMENT), **variables}
    words = list(map(str, words))
    if sys.platform == 'linux' and not read_at_start(variables):
        return start_server().run(words, environment, cwd, timeout, merge)
    errors = subprocess.STDOUT if merge else subprocess.PIPE
    command = [sys.executable, *words]
    return subprocess.run(
        command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=timeout
    )


@functools.cache
def start_server() -> 'ForkServer':
    """The server of this process; it ends when this process does."""
    return ForkServer()


class ForkServer:
    """The side of the tests: starts the server and asks it to run scripts, one at a time."""

    def __init__(self) -> None:
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps messages apart
        with other:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,  # Ctrl-C is for pytest, which ends what runs
            )

    def run(
        self, words: List[str], environment: Dict[str, str], cwd: Optional[str], timeout: float, merge: bool
    ) -> subprocess.CompletedProcess:
        """Run a script or module and wait for it; the arguments are those of :func:`run_script`."""
        with tempfile.TemporaryDirectory() as folder:
            files = [f'{folder}/stdout', f'{folder}/stdout' if merge else f'{folder}/stderr']
            request = dict(words=words, environment=environment, cwd=str(cwd or os.getcwd()), files=files)
            self.socket.settimeout(None)
            self.socket.sendall(json.dumps(request).encode())
            pid = self._receive()
            self.socket.settimeout(timeout)
            try:
                returncode = self._receive()
            except BaseException as error:
                os.killpg(pid, signal.SIGKILL)  # with all that it started
                self.socket.settimeout(None)
                self._receive()
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(words, timeout, Path(files[0]).read_bytes()) from error
                raise
            stdout, stderr = (Path(file).read_text() for file in files)
        return subprocess.CompletedProcess(words, returncode, stdout, None if merge else stderr)

    def _receive(self) -> int:
        """A number from the server: the process that it started, then what that process ended with."""
        message = self.socket.recv(64)
        if not message:
            raise RuntimeError(f'the server ended with {self.process.wait()}')
        return int(message)


def serve(connection: socket.socket) -> dict:
    """Fork for each request, say which process runs and what it ended with; return the request in the fork."""
    with connection:
        while request := connection.recv(1 << 20):
            pid = os.fork()
            if pid == 0:
                return json.loads(request)
            connection.sendall(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def enter(request: dict, set_by_imports: Dict[str, str]) -> List[str]:
    """Make this fork the process that the request asks for; return the words of its command."""
    os.setsid()
    for descriptor, file in zip((1, 2), request['files']):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update({**set_by_imports, **request['environment']})
    numpy.random.seed()  # Python's own generator does this itself
    return request['words']


def leave() -> None:
    """End this fork after its script ended well, as the interpreter does, less what only frees memory.

    That memory is shared with the server, and freeing it would copy it page by page.
    """
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == '__main__':
    del sys.path[0]  # this folder
    before = dict(os.environ)
    for module in PRELOADED:
        importlib.import_module(module)
    import numpy

    gc.freeze()  # collecting what was imported would copy its pages
    words = enter(
        serve(socket.socket(fileno=int(sys.argv[1]))),
        {name: value for name, value in os.environ.items() if before.get(name) != value},
    )
    if words[0] == '-m':
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name='__main__', alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name='__main__')
    leave()
