"""libkat_capture.so: found beside its sources, loaded, its functions typed.

The structures and codes here are those of ``native/capture.h``, ``columns.h``, ``cupti.h``,
``digest.h``, ``forms.h``, ``pack.h`` and ``reader.h``.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from kat_otel.errors import CaptureError

__all__ = [
    "COLUMNS",
    "COUNTERS",
    "LONGEST_MESSAGE",
    "LONGEST_NAME",
    "PATH",
    "Code",
    "Geometry",
    "Options",
    "Outcome",
    "load",
]

PATH: Final = Path(__file__).parents[1] / "native" / "libkat_capture.so"

COLUMNS: Final = 10
COUNTERS: Final = 12
LONGEST_MESSAGE: Final = 256 << 10
LONGEST_NAME: Final = 4096
_ABI: Final = 2


class Code(IntEnum):
    """Why capture did not start."""

    OK = 0
    ALREADY = 1
    NO_MEMORY = 2
    NO_LIBRARY = 3
    NO_FUNCTION = 4
    UNKNOWN_VERSION = 5
    BUSY = 6
    NO_DRIVER = 7
    NO_PERMISSION = 8
    REFUSED = 9


class Geometry(ctypes.Structure):
    """Sizes of the region."""

    _fields_ = (
        ("buffer_count", c_uint32),
        ("buffer_bytes", c_uint32),
        ("ring_bytes", c_uint32),
        ("names_most", c_uint32),
        ("names_bytes", c_uint32),
    )


class Options(ctypes.Structure):
    """What ``kat_start`` takes."""

    _fields_ = (
        ("geometry", Geometry),
        ("flush_ms", c_uint32),
        ("kinds", c_uint64),
        ("cupti", c_char_p),
    )


class Outcome(ctypes.Structure):
    """What ``kat_start`` answers."""

    _fields_ = (
        ("code", c_int32),
        ("result", c_int32),
        ("version", c_uint32),
        ("layout_version", c_uint32),
        ("function", c_char * 64),
        ("detail", c_char * 256),
    )


_PROTOTYPES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "kat_abi": (c_uint32, ()),
    "kat_start": (c_int, (POINTER(Options), POINTER(Outcome))),
    "kat_stop": (None, ()),
    "kat_active": (c_int, ()),
    "kat_fd": (c_int, ()),
    "kat_flush": (None, ()),
    "kat_order": (None, (c_uint32,)),
    "kat_counters": (None, (c_uint64 * COUNTERS,)),
    "kat_layout_count": (c_uint32, ()),
    "kat_layout_of": (c_int, (c_uint32,)),
    "kat_layout_version": (c_uint32, (c_uint32,)),
    "kat_layout_sizes": (POINTER(ctypes.c_uint16), (c_uint32,)),
    "kat_attach": (c_void_p, (c_int, c_char_p)),
    "kat_detach": (None, (c_void_p,)),
    "kat_reader_pid": (c_int32, (c_void_p,)),
    "kat_reader_version": (c_uint32, (c_void_p,)),
    "kat_wait": (None, (c_void_p, c_int64)),
    "kat_rest": (None, (c_void_p, c_int64)),
    "kat_count_rows": (None, (c_void_p, c_uint32, c_uint64 * COLUMNS)),
    "kat_take_rows": (None, (c_void_p, c_void_p * COLUMNS, c_uint64 * COLUMNS)),
    "kat_names_known": (c_uint32, (c_void_p,)),
    "kat_name": (c_uint32, (c_void_p, c_uint32, c_char_p, c_uint32)),
    "kat_message": (c_uint32, (c_void_p, c_char_p, POINTER(c_uint32))),
    "kat_reader_counters": (None, (c_void_p, c_uint64 * (COUNTERS + 2))),
    "kat_reader_more": (c_int, (c_void_p,)),
    "kat_reader_closed": (c_int, (c_void_p,)),
    "kat_reader_order": (None, (c_void_p, c_uint32)),
    "kat_digest": (
        c_int32,
        (c_char_p, c_void_p, c_uint32, c_uint32, c_uint32, c_void_p, c_void_p, c_void_p),
    ),
    "kat_form_kernels": (c_int64, (c_void_p, c_int64, c_char_p, c_void_p, c_void_p)),
    "kat_form_calls": (c_int64, (c_void_p, c_int64, c_char_p, c_void_p, c_void_p)),
    "kat_pack": (
        c_int,
        (c_char_p, POINTER(c_int64), c_void_p, c_int64, POINTER(c_int64), POINTER(c_int64)),
    ),
    "kat_fill": (None, (c_char_p, c_void_p)),
    "kat_digest_room": (c_uint64, (c_int64, c_uint32)),
}

# Nanoseconds long and called on the server's threads: these keep the GIL, for giving it up and
# waiting for it again would cost a server of many threads milliseconds.
_QUICK: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "kat_mark": (c_int, (c_int, c_int, c_int, c_int)),
    "kat_say": (c_int, (c_char_p, c_uint32)),
}


@lru_cache(maxsize=1)
def load() -> Any:
    """Returns the library; its functions are attributes.

    Raises:
        CaptureError: it was not built, or is not this version's.
    """
    remedy = (
        "install a C compiler (Debian, Ubuntu: apt-get install gcc libc6-dev) and then"
        " kat-otel from source: pip install --force-reinstall --no-binary kat-otel kat-otel"
    )
    if not PATH.exists():
        raise CaptureError(f"{PATH.name} was not built when KAT-OTel was installed", remedy)
    try:
        library: Any = ctypes.CDLL(os.fspath(PATH))
        quick: Any = ctypes.PyDLL(os.fspath(PATH))
        for name, (result, arguments) in _PROTOTYPES.items():
            _type(getattr(library, name), result, arguments)
        for name, (result, arguments) in _QUICK.items():
            function = getattr(quick, name)
            _type(function, result, arguments)
            setattr(library, name, function)
    except (OSError, AttributeError) as error:
        raise CaptureError(f"{PATH} does not load: {error}", remedy) from error
    if library.kat_abi() != _ABI:
        raise CaptureError(f"{PATH} is of another version of KAT-OTel", remedy)
    return library


def _type(function: Any, result: Any, arguments: tuple[Any, ...]) -> None:
    function.restype = result
    function.argtypes = arguments
