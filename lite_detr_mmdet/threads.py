"""How long idle OpenMP threads spin before they sleep: set before torch is loaded, which reads it once."""

import os
import sys

SPIN_COUNT = '1000'
VARIABLES = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')


def limit_spinning() -> bool:
    """Let idle threads of GNU's OpenMP spin for microseconds, then sleep.

    By default they spin for milliseconds, which takes the processor from the threads that they wait for where other
    programs use it, too: a training step is then up to fifty times slower. Sleeping at once takes longer where no
    other program runs. A setting that the environment has already is kept.

    Returns:
        bool: Whether something was set; False where the environment has a setting or torch is loaded already.
    """
    if 'torch' in sys.modules or any(name in os.environ for name in VARIABLES):
        return False
    os.environ['GOMP_SPINCOUNT'] = SPIN_COUNT
    return True
