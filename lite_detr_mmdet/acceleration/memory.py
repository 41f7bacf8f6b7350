"""Let the C library keep the memory that is freed."""

import ctypes
import platform
from typing import Optional

# Options of glibc's mallopt, <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> Optional[str]:
    """Let glibc keep freed memory for the next call instead of returning it to the system page by page.

    This setting applies to the whole process until it ends: resident memory stays at its peak.

    Returns:
        str or None: Why it could not be done.
    """
    if platform.libc_ver()[0] != 'glibc':
        return f'the C library is {platform.libc_ver()[0] or "not glibc"}'
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    if not all(ctypes.CDLL(None).mallopt(option, value) for option, value in settings):
        return "glibc's mallopt refused"
    return None
