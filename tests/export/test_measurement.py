"""The memory of a call is seen, also where the process has free memory to reuse."""

import os
import sys

import numpy as np
import pytest

from lite_detr_mmdet.export.measurement import Measurement, measure_peak, measure_seconds

MEGABYTE = 1 << 20


@pytest.mark.skipif(
    sys.platform != 'linux' or not os.access('/proc/self/clear_refs', os.W_OK), reason='the system does not tell'
)
def test_peak_of_many_small_pieces():
    """Small pieces come from glibc's heap, which keeps them after they are freed."""

    def call():
        return [np.ones(60_000, dtype=np.uint8) for _ in range(1000)]

    keep = call()
    kept = [call(), np.ones(16)]  # the second lies above the pieces, so the heap cannot shrink by itself
    kept[0] = None
    assert 50 * MEGABYTE < measure_peak(call) < 80 * MEGABYTE
    assert measure_peak(lambda: None) < 5 * MEGABYTE
    del keep


def test_reads_as_a_line():
    assert str(Measurement(0.1234, 56_700_000)) == '123.4 ms, peak memory 57 MB beyond what is loaded'
    assert 'not known here' in str(Measurement(0.1, None))
    assert measure_seconds(lambda: None) >= 0
