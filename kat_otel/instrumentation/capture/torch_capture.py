"""Capture of a program without a GPU, in the form that the session knows: torch.profiler's."""

from __future__ import annotations

import threading

from kat_otel.instrumentation.capture.records import Edge, StepFlag
from kat_otel.instrumentation.capture.torch_profiler import TorchProfilerSource
from kat_otel.instrumentation.settings import Settings

__all__ = ["TorchCapture"]


class TorchCapture:
    """Records the operators of each step; ``KAT_CAPTURE=torch``.

    Attributes:
        fd: -1: there is no shared region, records stay in this process.
        source: what has been recorded.

    Raises:
        MissingDependencyError: there is no PyTorch with its profiler.
    """

    def __init__(self, settings: Settings) -> None:
        self.fd = -1
        self.source = TorchProfilerSource()
        self.source.order(settings.mode)
        self._running: tuple[int, int, int] | None = None  # step, micro-batch and thread

    def mark(self, step: int, micro: int, edge: Edge, flags: StepFlag) -> None:
        """Begins or ends the recording of a step, on the thread that runs it.

        One at a time: a micro-batch within it, or a step of another thread, is not recorded.
        """
        mark = step, micro, threading.get_native_id()
        if edge == Edge.BEGIN and self._running is None:
            self.source.step_begin(step, micro, flags)
            self._running = mark
        elif edge == Edge.END and self._running == mark:
            self._running = None
            self.source.step_end()

    def say(self, message: bytes) -> None:
        """Hands a message to the sender."""
        self.source.say(message)

    def stop(self) -> None:
        """Records no more steps; those that have ended can still be taken."""
        self.source.close()
