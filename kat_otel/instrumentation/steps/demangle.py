"""Kernel names as people read them: CUPTI gives them as the compiler mangled them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

__all__ = ["demangled"]

_LIBRARIES: Final = ("libstdc++.so.6", "libc++abi.so.1", "libc++.1.dylib")
_LONGEST: Final = 16_384
"""Characters of a mangled name: what is longer stays as it is."""


def demangled(name: str) -> str:
    """Returns the name as C++ spells it; the name itself if it is none, or nobody can tell."""
    if not name.startswith("_Z") or len(name) > _LONGEST or "\0" in name:
        return name
    spell = _speller()
    return name if spell is None else spell(name)


@lru_cache(maxsize=1)
def _speller() -> Callable[[str], str] | None:
    """Returns the C++ runtime's own function; None where there is no such library."""
    for file in _LIBRARIES:
        try:
            library = ctypes.CDLL(file)
            return _Speller(library["__cxa_demangle"], ctypes.CDLL(None)["free"])
        except (OSError, AttributeError):
            continue
    return None


class _Speller:
    def __init__(self, demangle: Any, free: Any) -> None:
        demangle.restype = ctypes.c_void_p
        demangle.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3]
        free.restype, free.argtypes = None, [ctypes.c_void_p]
        self._demangle, self._free = demangle, free

    def __call__(self, name: str) -> str:
        text = self._demangle(name.encode("utf-8", "surrogatepass"), None, None, None)
        if not text:
            return name
        try:
            return ctypes.string_at(text).decode(errors="replace")
        finally:
            self._free(text)
