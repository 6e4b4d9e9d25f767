"""Capture in the worker's process: started, told of steps, stopped."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Any, Final

from kat_otel.errors import CaptureError
from kat_otel.instrumentation import libcupti
from kat_otel.instrumentation.library import COUNTERS, PATH, Code, Geometry, Options, Outcome, load
from kat_otel.instrumentation.records import Loss
from kat_otel.instrumentation.settings import Settings

__all__ = ["Capture"]

logger: Final = logging.getLogger(__name__)

_BUFFER_BYTES: Final = 64 << 10
"""CUPTI hands over buffers whose records are all complete: under a load that never pauses that is
when a buffer is full, so small buffers mean fresh records."""

_RING_BYTES: Final = 1 << 20
_NAMES: Final = 32_768
_NAMES_BYTES: Final = 8 << 20
_FLUSH_MS: Final = 100

_MARKER: Final = 12
_GRAPH_TRACE: Final = 51
_KINDS: Final = (
    10,  # concurrent kernels
    1,  # memcpy
    22,  # memcpy between devices
    2,  # memset
    38,  # synchronisation
    5,  # runtime API: launches, copies, waits
    4,  # driver API: the same
    39,  # external correlation
    17,  # overhead
)

_NEXT: Final = frozenset({Code.NO_LIBRARY, Code.NO_FUNCTION, Code.UNKNOWN_VERSION})
"""Codes after which the next libcupti is tried."""


class Capture:
    """What runs in this process; there is one at most.

    A forked child does not inherit it: there its methods do nothing, and a capture of the
    child's own may be started.

    Attributes:
        fd: the region, for :class:`kat_otel.instrumentation.region.RegionSource`. Closed at exec:
            hand it to the helper by ``pass_fds``.
        library: the libcupti in use; None without CUPTI.
        notes: what a user may want to know: of an unknown version of CUPTI, for instance.
    """

    def __init__(
        self, library: libcupti.Candidate | None, version: int, notes: tuple[str, ...]
    ) -> None:
        self._native = load()
        self._pid = os.getpid()
        self.fd: int = self._native.kat_fd()
        self.library = library
        self.version = version
        self.notes = notes
        self._last = Loss()

    @staticmethod
    def start(settings: Settings, *, cupti: bool = True) -> Capture:
        """Starts capture, or says why not and leaves nothing behind.

        Args:
            settings: pool, graphs, libcupti, mode.
            cupti: False for marks and messages alone: where CUPTI is busy, or there is no GPU.

        Raises:
            CaptureError: with reason and remedy.
        """
        if not cupti:
            return _begun(None, _start(settings, None), settings)
        candidates = libcupti.find(settings.cupti)
        outcome = Outcome()
        for candidate in candidates:
            outcome = _start(settings, candidate)
            if outcome.code == Code.OK:
                return _begun(candidate, outcome, settings)
            if outcome.code not in _NEXT or candidate.where in {"KAT_CUPTI_LIBRARY", "mapped"}:
                raise _error(outcome, candidate)
        raise CaptureError(
            f"no libcupti (tried {', '.join(dict.fromkeys(c.where for c in candidates))}):"
            f" {_text(outcome.detail) or Code(outcome.code).name}",
            "pip install nvidia-cuda-cupti-cu12 (or nvidia-cuda-cupti for CUDA 13),"
            " or KAT_CUPTI_LIBRARY=/path/of/libcupti.so",
        )

    def mark(self, step: int, micro: int, edge: int, flags: int = 0) -> None:
        """Says that a step begins or ends (records.Edge) on this thread; what is lost is counted."""
        self._native.kat_mark(step, micro, edge, flags)

    def say(self, message: bytes) -> bool:
        """Hands on a JSON message; returns whether there was room, at most 256 KiB."""
        return self._native.kat_say(message, len(message)) == 0

    def loss(self) -> Loss:
        """Returns what was not recorded so far, as the worker's side knows it."""
        return self._counted()[0]

    def busy_ns(self) -> int:
        """Returns the CPU time that capture took in this process so far."""
        return self._counted()[1]

    def order(self, mode: str) -> None:
        """Says how much to record from now on: ``full``, ``digest`` or ``off``."""
        self._native.kat_order(("full", "digest", "off").index(mode))

    def flush(self) -> None:
        """Hands over what is complete; waits until that has been done."""
        self._native.kat_flush()

    def stop(self) -> None:
        """Hands over what there is, and ends capture; :attr:`fd` is open until the next start."""
        if os.getpid() == self._pid:
            self._native.kat_stop()

    def _counted(self) -> tuple[Loss, int]:
        counters = (ctypes.c_uint64 * COUNTERS)()
        self._native.kat_counters(counters)
        return Loss(*counters[:4]), counters[9]


def _kinds(settings: Settings) -> int:
    kinds = set(_KINDS)
    if settings.graphs == "graph":
        kinds.add(_GRAPH_TRACE)
    if os.environ.get("NVTX_INJECTION64_PATH") != str(PATH):
        kinds.add(_MARKER)  # our own NVTX tool records whole ranges, with payloads
    return sum(1 << kind for kind in kinds)


def _start(settings: Settings, candidate: libcupti.Candidate | None) -> Outcome:
    native = load()
    options = Options(
        geometry=Geometry(
            buffer_count=max(1, (settings.buffer_mib << 20) // _BUFFER_BYTES),
            buffer_bytes=_BUFFER_BYTES,
            ring_bytes=_RING_BYTES,
            names_most=_NAMES,
            names_bytes=_NAMES_BYTES,
        ),
        flush_ms=_FLUSH_MS,
        kinds=_kinds(settings),
        cupti=os.fsencode(candidate.path) if candidate else None,
    )
    outcome = Outcome()
    native.kat_start(ctypes.byref(options), ctypes.byref(outcome))
    if candidate is None and outcome.code != Code.OK:
        raise _error(outcome, candidate)
    return outcome


def _begun(
    candidate: libcupti.Candidate | None, outcome: Outcome, settings: Settings
) -> Capture:
    notes: tuple[str, ...] = ()
    if candidate and outcome.version // 100 > outcome.layout_version // 100 >= 1_300:
        notes = (
            f"CUPTI {outcome.version} is newer than what KAT-OTel knows: its records are read as"
            f" those of {outcome.layout_version}, and checked",
        )
    for note in notes:
        logger.warning("%s", note)
    capture = Capture(candidate, outcome.version, notes)
    if settings.mode != "full":
        capture.order(settings.mode)
    return capture


def _text(value: Any) -> str:
    return bytes(value).decode(errors="replace")


def _error(outcome: Outcome, candidate: libcupti.Candidate | None) -> CaptureError:
    where = candidate.path if candidate else ""
    said = f"{_text(outcome.function)}: {_text(outcome.detail)} ({outcome.result})"
    reason, remedy = {
        Code.ALREADY: ("capture runs in this process already", ""),
        Code.NO_MEMORY: (f"no memory to share: {said}", "lower KAT_BUFFER_MIB"),
        Code.NO_LIBRARY: (f"libcupti does not load: {_text(outcome.detail)}", _PATH_REMEDY),
        Code.NO_FUNCTION: (f"{where} has no {_text(outcome.function)}", _PATH_REMEDY),
        Code.UNKNOWN_VERSION: (
            f"{where} is CUPTI {outcome.version}, older than CUDA 12.1",
            "use CUDA 12.1 or newer",
        ),
        Code.BUSY: (
            f"another tool has CUPTI: {said}",
            "end it (nsys, torch.profiler, another tracer), or run without kernel spans",
        ),
        Code.NO_DRIVER: (
            f"CUPTI finds no working NVIDIA driver: {said}",
            "run nvidia-smi in the same place; a container needs the utility and compute"
            " capabilities of the NVIDIA runtime",
        ),
        Code.NO_PERMISSION: (
            f"the driver does not allow profiling: {said}",
            "set NVreg_RestrictProfilingToAdminUsers=0 for the nvidia module, or add the"
            " capability CAP_SYS_ADMIN",
        ),
    }.get(
        Code(outcome.code),
        (f"CUPTI refuses: {said}", "report it with the versions of CUDA and the driver"),
    )
    return CaptureError(reason, remedy)


_PATH_REMEDY: Final = "set KAT_CUPTI_LIBRARY to the libcupti of the CUDA that the server uses"
