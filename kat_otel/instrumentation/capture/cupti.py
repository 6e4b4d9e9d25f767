"""Capture in the worker's process: started, told of steps, stopped."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Final

from kat_otel.instrumentation.capture import libcupti
from kat_otel.instrumentation.capture.layouts import Layout
from kat_otel.instrumentation.capture.library import (
    COUNTERS,
    PATH,
    Code,
    Geometry,
    Options,
    Outcome,
    load,
)
from kat_otel.instrumentation.capture.records import Loss
from kat_otel.instrumentation.capture.refusal import no_library, refusal
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
_KINDS: Final[tuple[int, ...]] = (
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
        fd: the region, for :class:`~kat_otel.instrumentation.capture.region.RegionSource`. Closed
            at exec: hand it to the helper by ``pass_fds``.
        library: the libcupti in use; None without CUPTI.
        version: as cuptiGetVersion says it; 0 without CUPTI.
        notes: what a user may want to know: of an unknown version of CUPTI, for instance.
    """

    def __init__(
        self, library: libcupti.Candidate | None, version: int, notes: tuple[str, ...]
    ) -> None:
        self._native = load()
        self._mark = self._native.kat_mark  # looked up once: it is called twice a step
        self._pid = os.getpid()
        self.fd: int = self._native.kat_fd()
        self.library = library
        self.version = version
        self.notes = notes

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
                raise refusal(outcome, candidate.path)
        raise no_library(", ".join(dict.fromkeys(one.where for one in candidates)), outcome)

    def mark(self, step: int, micro: int, edge: int, flags: int = 0) -> None:
        """Says that a step begins or ends (records.Edge) on this thread; a loss is counted."""
        self._mark(step, micro, edge, flags)

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
    kinds: set[int] = set(_KINDS)
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
        raise refusal(outcome, "")
    return outcome


def _begun(candidate: libcupti.Candidate | None, outcome: Outcome, settings: Settings) -> Capture:
    layout = Layout.of(outcome.version) if candidate else None
    notes = (layout.note,) if layout and layout.note else ()
    for note in notes:
        logger.warning("%s", note)
    capture = Capture(candidate, outcome.version, notes)
    if settings.mode != "full":
        capture.order(settings.mode)
    return capture
