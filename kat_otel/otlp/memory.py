"""Reading and writing at addresses, for the compiled walker; checked when it is interpreted.

Integer addresses instead of arrays, because arrays handed to inlined functions cost several
times more. The callers' rule: every read is preceded by a comparison with the end of its
buffer. With ``NUMBA_DISABLE_JIT`` the same source runs as Python over the functions at the end
of this file, which raise on any access outside the arrays that :func:`address_of` was given:
so a fuzzer can watch every single access.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import INTERPRETED, inline

__all__ = [
    "OutOfBoundsError",
    "address_of",
    "big_endian64",
    "load8",
    "load32",
    "load64",
    "signed",
    "store8",
    "store32",
    "store64",
    "unsigned",
]


class OutOfBoundsError(AssertionError):
    """The interpreted walker touched memory that no array of its own covers: a defect."""


_regions: dict[int, tuple[int, int, Any]] = {}


def address_of(array: NDArray[Any]) -> int:
    """Returns the address of an array's first byte; the caller keeps the array alive."""
    address: int = array.__array_interface__["data"][0]
    if INTERPRETED and array.nbytes:
        key = id(array)
        gone = weakref.ref(array, lambda _: _regions.pop(key, None))
        _regions[key] = (address, address + array.nbytes, gone)
    return address


@inline
def signed(value: int) -> int:
    """Returns ``value`` as int64, by its bits."""
    return np.int64(value)  # type: ignore[return-value]


@inline
def unsigned(value: int) -> int:
    """Returns ``value`` as uint64, by its bits."""
    return np.uint64(value)  # type: ignore[return-value]


if INTERPRETED:

    def _checked(address: int, size: int) -> Any:
        import ctypes  # noqa: PLC0415 - the interpreted twin's alone

        address = int(address)
        for low, high, _ in _regions.values():
            if low <= address and address + size <= high:
                return (ctypes.c_char * size).from_address(address)
        raise OutOfBoundsError(f"{size} bytes at {address:#x} belong to no array")

    def _loader(form: str, dtype: Any) -> Callable[[int], int]:
        size = struct.calcsize(form)
        return lambda address: dtype(struct.unpack(form, _checked(address, size).raw)[0])

    def _storer(size: int) -> Callable[[int, int], None]:
        def store(address: int, value: int) -> None:
            _checked(address, size).raw = (int(value) % (1 << 8 * size)).to_bytes(size, "little")

        return store

    def _swapped(value: int) -> int:
        return np.uint64(int.from_bytes(int(value).to_bytes(8, "little"), "big"))  # type: ignore[return-value]

    load8, load32, load64 = (
        _loader("<B", np.int64),
        _loader("<i", np.int64),
        _loader("<Q", np.uint64),
    )
    store8, store32, store64 = _storer(1), _storer(4), _storer(8)
    big_endian64: Callable[[int], int] = _swapped
else:
    from kat_otel.otlp.machine import (
        big_endian64,
        load8,
        load32,
        load64,
        store8,
        store32,
        store64,
    )
