"""A long-lived process's heap: memory is kept, and what stays is not looked at again.

Memory that was used once is kept for the next request, rather than given back and faulted in.

glibc returns the top of the heap, and every block above some size, to the system as soon as it
is free. A processor takes and frees megabytes per request (the bytes, the columns, the log's
pages), so that each of them costs a page fault every time: half of the log's CPU time
(``docs/decisions/0004-write-ahead-log.md``).
"""

from __future__ import annotations

import ctypes
import gc
import logging
from typing import Final

__all__ = ["keep_heap", "leave_alone"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 128 << 20
_LARGEST: Final = 32 << 20
"""glibc's own limit on 64-bit machines; larger blocks are still given back at once."""

_ALLOCATIONS: Final = 20_000

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


def leave_alone() -> None:
    """Spares the garbage collector what is there now, and most of its turns.

    Called once when a process of ours is up. Spans and reports hold no circles: reference
    counting frees them. The collector walked all modules (Numba's are many) and every span's
    attributes to find nothing, a quarter of the time of judging digests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)
