"""The stand-in libcupti of the tests, for a rehearsal without a GPU."""

from __future__ import annotations

from functools import lru_cache

from tests.instrumentation.standin import Standin

__all__ = ["standin_cupti"]


@lru_cache(maxsize=1)
def standin_cupti() -> Standin:
    """Compiles and loads it."""
    return Standin()
