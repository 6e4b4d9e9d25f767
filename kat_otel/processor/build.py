"""Which build of the package runs."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["kat_version"]


@lru_cache(maxsize=1)
def kat_version() -> str:
    """Returns the package's version."""
    try:
        return version("kat-otel")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
