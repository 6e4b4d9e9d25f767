"""What one worker process does: starts capture, says who it is, and marks its steps.

Nothing is started before the first step or the engine's own word that GPU work is about to begin:
API servers, tokenizers and the resource tracker import the same hooks and never get that far.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from kat_otel.errors import KatError
from kat_otel.instrumentation.capture.records import Edge, StepFlag
from kat_otel.instrumentation.identity.identify import Identifier
from kat_otel.instrumentation.identity.ranks import Who, from_environment
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.settings import Settings

__all__ = ["HELPER", "Capturing", "Open", "Session", "forget_session", "is_off", "session"]

logger: Final = logging.getLogger(__name__)

HELPER: Final = "KAT_HELPER"
"""Set to 1 in the environment of our own helper process: nothing is instrumented there."""

_STEPS: Final = 2**31
_LAST_WORD_S: Final = 1.0


class Capturing(Protocol):
    """What we use of :class:`kat_otel.instrumentation.capture.cupti.Capture`."""

    fd: int

    def mark(self, step: int, micro: int, edge: Edge, flags: StepFlag) -> None:
        """Notes that a step begins or ends on this thread, now."""
        ...

    def say(self, message: bytes) -> bool | None:
        """Hands a JSON message to the helper; never waits."""
        ...

    def stop(self) -> None:
        """Ends capture."""
        ...


class Open(NamedTuple):
    """A step that runs.

    Attributes:
        step, micro: its numbers.
        flags: its kind.
    """

    step: int
    micro: int
    flags: StepFlag


def is_off(environment: Mapping[str, str]) -> bool:
    """Returns whether nothing may be instrumented: by a kill switch, or in our own helper."""
    switches = {key: environment.get(key, "") for key in ("OTEL_SDK_DISABLED", "KAT_MODE")}
    settings = Settings.read(switches)  # the rest is read, and complained of, once: by the session
    return settings.disabled or settings.mode == "off" or environment.get(HELPER) == "1"


class Session:
    """The process-wide object behind all hooks.

    Attributes:
        off: nothing is ever started.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.off = is_off(environment)
        self._environment = environment
        self._settings = Settings.read(environment)
        self._lock = threading.Lock()  # of starting; steps are marked without it
        self._started = False
        self._capture: Capturing | None = None
        self._helper: Any = None
        self._identifier: Identifier | None = None
        self._next = 0
        self._last = Open(-1, 0, StepFlag.NONE)
        self._busy = threading.local()

    # --- start and end ---------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether capture was started here, or was tried."""
        return self._started

    def start(self) -> None:
        """Starts capture and the helper, once; best before CUDA graphs are captured."""
        if self._started or self.off:
            return
        with self._lock:
            if self._started:
                return
            self._started = True
            self._capture = self._captured()
            if self._capture is None:
                return
            self._helper = self._helped(self._capture)
            if self._helper is None:
                return
            self._identifier = Identifier(self._settings, self._environment, self._introduce)
            atexit.register(self.stop)

    def _sent(self, capture: Capturing) -> Any:
        """Starts who makes spans of what is captured, and sends them."""
        own = getattr(capture, "source", None)  # torch.profiler's events are Python objects
        if self._settings.where == "process" and own is None:
            helping: Any = importlib.import_module("kat_otel.instrumentation.sending.helping")
            return helping.start_helper(capture.fd, self._settings, self._unheard)
        region: Any = importlib.import_module("kat_otel.instrumentation.capture.region")
        wiring: Any = importlib.import_module("kat_otel.instrumentation.sending.wiring")
        return wiring.SendingThread(self._settings, own or region.RegionSource(capture.fd))

    def _captured(self) -> Capturing | None:
        cupti: Any = importlib.import_module("kat_otel.instrumentation.capture.cupti")
        try:
            if self._settings.tool == "torch":
                torch: Any = importlib.import_module(
                    "kat_otel.instrumentation.capture.torch_capture"
                )
                return torch.TorchCapture(self._settings)
            if self._settings.tool == "cupti":
                return cupti.Capture.start(self._settings)
        except KatError as error:
            logger.warning("no work is captured: %s; steps are marked all the same", error)
        try:
            return cupti.Capture.start(self._settings, cupti=False)
        except KatError as error:
            logger.warning("nothing is captured: %s; the server runs on", error)
            return None

    def _helped(self, capture: Capturing) -> Any:
        """Returns the helper; without one capture ends, for nobody would read what it records."""
        helper: Any = None
        try:
            helper = self._sent(capture)
        except KatError as error:
            logger.warning("nothing is sent: %s; the server runs on", error)
        finally:
            if helper is None:
                self._capture = None
                capture.stop()
        return helper

    def identify(self, who: Callable[[], Who]) -> None:
        """Says who the worker is, once; ``who`` reads the engine's ranks."""
        if self._identifier is not None:
            self._identifier.start(who)

    def _introduce(self, worker: Worker) -> None:
        self.say(worker.encode())
        logger.info(
            "rank %d of %d of instance %s is captured",
            worker.resource.rank,
            worker.resource.world_size,
            worker.resource.instance,
        )

    def stop(self) -> None:
        """Ends capture; the helper sends what it has and ends."""
        with self._lock:
            helper, self._helper = self._helper, None
            identifier = self._identifier
        if identifier is not None:
            identifier.stop()
            identifier.join(_LAST_WORD_S)  # its word goes through the region, which ends now
        with self._lock:
            capture, self._capture = self._capture, None
        atexit.unregister(self.stop)
        try:
            if capture is not None:
                capture.stop()  # first: the helper sees the end of the region and drains it
        finally:
            if helper is not None:
                helper.close()

    def _unheard(self) -> None:
        """Ends capture: the helper has ended too often, and nobody reads what is recorded."""
        with self._lock:
            capture, self._capture = self._capture, None
        if capture is not None:
            capture.stop()

    def abandon(self) -> None:
        """Lets go of everything without touching it: in a forked child it is the parent's."""
        self._lock = threading.Lock()  # a thread that is not here may have held it
        _parents.append((self._capture, self._helper))  # so that nothing of it is finalised
        self._capture = self._helper = self._identifier = None

    # --- steps -----------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """The number of the next step."""
        return self._next

    def begin(
        self,
        flags: StepFlag = StepFlag.NONE,
        *,
        step: int | None = None,
        micro: int = 0,
        who: Callable[[], Who] | None = None,
    ) -> Open | None:
        """Counts a step and marks its begin on this thread; None within another one.

        Args:
            flags: its kind.
            step: its number, where the program counts itself; the next one otherwise.
            micro: its micro-batch.
            who: reads the engine's ranks, where they were not said before.

        Raises:
            Exception: of a start that failed: the hook's guard says it.
        """
        if getattr(self._busy, "step", None) is not None:
            return None
        number = self._next if step is None else step
        self._next = (number + 1) % _STEPS
        opened = self._last = Open(number % _STEPS, micro, flags)
        if not self._started:
            self.start()
        self.identify(who or (lambda: from_environment(self._environment)))
        capture = self._capture
        if capture is not None:
            capture.mark(opened.step, micro, Edge.BEGIN, flags)
        self._busy.step = opened  # last: a step that could not be marked does not run
        return opened

    def end(self, opened: Open | None) -> None:
        """Marks the end of a step on this thread."""
        if opened is None:
            return
        self._busy.step = None
        capture = self._capture
        if capture is not None:
            capture.mark(opened.step, opened.micro, Edge.END, opened.flags)

    def part(self, micro: int, edge: Edge) -> None:
        """Marks an end of a micro-batch that another thread runs, of the step that runs now."""
        capture = self._capture
        if capture is not None and self._last.step >= 0:
            capture.mark(self._last.step, micro, edge, self._last.flags)

    def say(self, message: bytes) -> None:
        """Hands a message to the helper; without capture it goes nowhere."""
        capture = self._capture
        if capture is not None:
            capture.say(message)

    @property
    def capturing(self) -> bool:
        """Whether anybody listens."""
        return self._capture is not None


_session: Session | None = None
_parents: list[Any] = []


def session() -> Session:
    """Returns the session of this process; of a forked child it is a new one."""
    global _session  # noqa: PLW0603 — one a process, as the name says
    if _session is None:
        _session = Session(dict(os.environ))
    return _session


def forget_session() -> None:
    """Ends the session of this process; the next step begins a new one, counted from 0."""
    global _session
    ended, _session = _session, None
    if ended is not None:
        ended.stop()


def _forget() -> None:
    """In a forked child: capture, helper and counter are the parent's, which goes on with them."""
    global _session  # noqa: PLW0603
    if _session is not None:
        _session.abandon()
    _session = None


os.register_at_fork(after_in_child=_forget)
