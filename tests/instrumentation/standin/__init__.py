"""A stand-in for libcupti: same C ABI, built by the system's compiler, driven from here.

Give its path as ``KAT_CUPTI_LIBRARY``. It emits rows (:data:`ROW`) at their times from its own
threads, into buffers laid out as the CUPTI of a chosen version does, and hands those over when
their records have ended. Programs without Python set ``STANDIN_CUPTI_REPLAY`` to a file made by
:func:`write`; the replay then begins when kernels are first enabled.

Environment: ``STANDIN_CUPTI_VERSION`` (as cuptiGetVersion says it: 18 is CUDA 12.1, 22 12.4, 27
12.9, 130000 13.0 ...), ``STANDIN_CUPTI_FAIL`` (``cuptiSubscribe=39,...``),
``STANDIN_CUPTI_FAIL_KIND`` (cuptiActivityEnable fails for this kind alone).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "ROW", "Standin", "build", "write"]

ROW = np.dtype(
    [
        ("at", "<i8"),  # ns after the start: when it is put into a buffer
        ("start", "<i8"),  # ns after the start; 0 and 0: no times
        ("end", "<i8"),
        ("graph_node", "<u8"),
        ("bytes", "<i8"),
        ("id", "<u8"),  # external id; a marker's id
        ("kind", "<u4"),  # KINDS
        ("name", "<u4"),  # index into names: kernel, call or range
        ("domain", "<u4"),  # index into names: a range's domain
        ("correlation", "<u4"),
        ("device", "<i4"),
        ("stream", "<i4"),
        ("graph", "<u4"),
        ("grid", "<i4", (3,)),
        ("block", "<i4", (3,)),
        ("thread", "<u4"),
        ("extra", "<u4"),  # copy, sync, overhead or external kind; a marker's flags
    ],
    align=True,
)
"""``struct row`` of standin.h."""

KINDS = {
    "copy": 1,
    "set": 2,
    "driver": 4,
    "runtime": 5,
    "kernel": 10,
    "marker": 12,
    "overhead": 17,
    "peer": 22,
    "sync": 38,
    "external": 39,
    "graph": 51,
    "unknown": 52,
}

_HERE = Path(__file__).parent


@functools.cache
def build(*, old: bool = False) -> Path:
    """Compiles the stand-in once per state of its sources; ``old``: before CUDA 12.9."""
    sources = sorted([*_HERE.glob("*.c"), *_HERE.glob("*.h")])
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"kat-standin-{os.getuid()}-{state}")
    folder.mkdir(mode=0o700, exist_ok=True)
    # One file a process: its state is global, and two tests may run at once.
    target = folder / ("libcupti-old.so" if old else "libcupti.so")
    if not target.exists():
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        assert compiler, "the tests of capture need a C compiler: apt-get install gcc libc6-dev"
        made = folder / f"{target.name}.{os.getpid()}"
        command = [compiler, "-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
        command += ["-Wall", "-Wextra", "-Werror", *(["-DOLD"] if old else [])]
        command += [*(str(path) for path in sources if path.suffix == ".c"), "-o", str(made)]
        subprocess.run([*command, "-pthread"], check=True)
        made.replace(target)
    return target


def _texts(names: Sequence[str]) -> bytes:
    return b"".join(name.encode() + b"\0" for name in names)


def write(path: Path, rows: NDArray[Any], names: Sequence[str]) -> None:
    """Writes a file for ``STANDIN_CUPTI_REPLAY``; ``rows`` of dtype ROW, in any order."""
    texts = _texts(names)
    rows = np.ascontiguousarray(rows[np.argsort(rows["at"], kind="stable")], ROW)
    counts = np.array([len(rows), len(texts), len(names)], "<u8").tobytes()
    path.write_bytes(b"KATROWS1" + counts + rows.tobytes() + texts)


class Standin:
    """The stand-in loaded into this process, in its initial state.

    Attributes:
        path: for ``KAT_CUPTI_LIBRARY``.
    """

    def __init__(self, version: int = 130500) -> None:
        self.path = str(build(old=version < 27))
        self._library: Any = ctypes.CDLL(self.path)
        signatures: dict[str, tuple[Any, ...]] = {
            "standin_reset": (ctypes.c_uint32,),
            "standin_hold": (ctypes.c_int,),
            "standin_skew": (ctypes.c_int64,),
            "standin_grow": (ctypes.c_uint32,),
            "standin_corrupt": (ctypes.c_uint32,),
            "standin_callbacks": (ctypes.c_uint64 * 2,),
            "standin_replay": (
                ctypes.c_void_p,
                ctypes.c_uint64,
                ctypes.c_char_p,
                ctypes.c_uint64,
                ctypes.c_uint64,
                ctypes.c_int64,
            ),
            "standin_load": (ctypes.c_uint64, ctypes.c_uint64),
        }
        for name, arguments in signatures.items():
            getattr(self._library, name).argtypes = arguments
        self._library.standin_reset(version)

    def replay(self, rows: NDArray[Any], names: Sequence[str], start_unix_ns: int = 0) -> None:
        """Begins to emit rows (any order) on a thread; ``start_unix_ns`` 0 is now."""
        texts = _texts(names)
        rows = np.ascontiguousarray(rows[np.argsort(rows["at"], kind="stable")], ROW)
        begun = self._library.standin_replay(
            rows.ctypes.data, len(rows), texts, len(texts), len(names), start_unix_ns
        )
        assert begun == 0

    def load(self, kernels: int, rate: int) -> None:
        """Begins to emit launches and their kernels, so many a second, as if this thread launched.

        Their names are 64 long ones, and a collective's for every tenth.
        """
        assert self._library.standin_load(kernels, rate) == 0

    def wait(self) -> None:
        """Waits until all has been emitted."""
        self._library.standin_wait()

    def hold(self, by_another: bool = True) -> None:
        """Lets another tool have CUPTI."""
        self._library.standin_hold(by_another)

    def reuse(self) -> None:
        """Lets the names of later replays take the memory of the first one's."""
        self._library.standin_reuse(1)

    def skew(self, ns: int) -> None:
        """Sets CUPTI's clock against Unix time."""
        self._library.standin_skew(ns)

    def grow(self, extra: int) -> None:
        """Makes records of kernels, copies and sets larger than the version says."""
        self._library.standin_grow(extra)

    def corrupt(self, records: int) -> None:
        """Spoils the kind of the next records."""
        self._library.standin_corrupt(records)

    def enabled(self) -> int:
        """Returns how many kinds and calls are on, and subscribers."""
        return self._library.standin_enabled()

    def callbacks(self) -> tuple[int, int]:
        """Returns the CPU time in our callbacks in ns, and the records that went through them."""
        out = (ctypes.c_uint64 * 2)()
        self._library.standin_callbacks(out)
        return out[0], out[1]
