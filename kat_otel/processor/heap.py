"""Memory that was used once is kept for the next request, rather than given back and faulted in.

glibc returns the top of the heap, and every block above some size, to the system as soon as it
is free. A processor takes and frees megabytes per request (the bytes, the columns, the log's
pages), so that each of them costs a page fault every time: half of the log's CPU time
(``docs/decisions/0004-write-ahead-log.md``).
"""

from __future__ import annotations

import ctypes
import logging
from typing import Final

__all__ = ["keep_heap"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 128 << 20
_LARGEST: Final = 32 << 20
"""glibc's own limit on 64-bit machines; larger blocks are still given back at once."""

logger = logging.getLogger(__name__)


def keep_heap(kept: int = _KEPT) -> bool:
    """Lets this process keep up to ``kept`` free bytes at the top of its heap.

    Called once at the start of a process that is ours: it concerns all of it.

    Returns:
        Whether the C library knows how; if not (musl, macOS), everything works as before.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        logger.debug("no mallopt here: freed memory goes back to the system at once")
        return False
    done = mallopt(_M_MMAP_THRESHOLD, min(kept, _LARGEST)), mallopt(_M_TRIM_THRESHOLD, kept)
    return all(done)
