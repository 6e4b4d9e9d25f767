"""Steps of programs without a GPU: torch.profiler's CPU activities as if a GPU had done them.

Around each step PyTorch records the operators of the step's thread, in the process itself. The
outermost operators stand for kernels, on a stream for each thread, and for the calls that launched
them: inner ones leave out what an operator does itself (the product in ``addmm``). What gloo did
is a collective, from its call to its end. This is for tests and small CPU deployments: recording
and reading the events costs far more than CUPTI.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
import zlib
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import MissingDependencyError
from kat_otel.instrumentation.capture.records import (
    API,
    KERNEL,
    MARKER,
    STEP,
    Batch,
    Edge,
    Loss,
    StepFlag,
)
from kat_otel.trees import innermost_enclosing

__all__ = ["TorchProfilerSource"]

_MARK: Final = "kat_otel.step"
_GLOO: Final = "gloo:"
_GLOO_STREAM: Final = 1 << 16
"""Of all of gloo's work: which of its threads does it is chance, and no two ranks' is the same."""
_MAX_STEPS: Final = 64  # recorded and not yet taken

Int64 = NDArray[np.int64]


class TorchProfilerSource:
    """A :class:`~kat_otel.instrumentation.capture.records.Source`, told of steps' edges.

    Raises:
        MissingDependencyError: PyTorch is not installed, or was built without its profiler.
    """

    def __init__(self) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
            if not self._torch.autograd.kineto_available():
                raise ImportError("this PyTorch was built without Kineto")
        except ImportError as error:
            raise MissingDependencyError(f"steps on CPUs want torch.profiler: {error}") from error
        with self._profile():
            pass  # the first time PyTorch looks for GPUs, for seconds: not in the first step
        self._ready = threading.Condition()
        self._steps: deque[tuple[list[Any], NDArray[Any]]] = deque()
        self._texts: list[bytes] = []
        self._strings: list[str] = [""]
        self._index: dict[str, int] = {"": 0}
        self._correlation = 0
        self._lost = 0
        self._busy_ns = 0
        self._on = True
        self._closed = False
        self._open: tuple[Any, Any, list[tuple[int, ...]]] | None = None

    def _profile(self) -> Any:
        activities = [self._torch.profiler.ProfilerActivity.CPU]
        return self._torch.profiler.profile(activities=activities)

    def step_begin(self, step: int, micro: int = 0, flags: StepFlag = StepFlag.NONE) -> None:
        """A step begins on this thread, which records from now on; one inside another is none."""
        if not self._on or self._open is not None:
            return
        begin = time.thread_time_ns()
        profiler = self._profile()
        profiler.start()
        scope = self._torch.profiler.record_function(_MARK)
        scope.__enter__()
        mark = (time.time_ns(), threading.get_native_id(), step, micro, Edge.BEGIN, flags)
        self._open = profiler, scope, [mark]
        self._busy_ns += time.thread_time_ns() - begin

    def step_end(self) -> None:
        """The step that has begun on this thread ends."""
        if self._open is None:
            return
        (profiler, scope, marks), self._open = self._open, None
        marks.append((time.time_ns(), *marks[0][1:4], Edge.END, marks[0][5]))
        begin = time.thread_time_ns()
        scope.__exit__(None, None, None)
        profiler.stop()
        events = list(profiler.profiler.kineto_results.events())
        with self._ready:
            if len(self._steps) >= _MAX_STEPS:
                self._lost += len(self._steps.popleft()[0])
            self._steps.append((events, np.array(marks, STEP)))
            self._ready.notify()
        self._busy_ns += time.thread_time_ns() - begin

    def say(self, text: bytes) -> None:
        """Hands over a message of the worker."""
        with self._ready:
            self._texts.append(text)

    def take(self, timeout: float) -> Batch:
        """Returns the steps that have ended since the last batch."""
        with self._ready:
            if not self._steps and not self._texts and not self._closed:
                self._ready.wait(timeout)
            steps, self._steps = self._steps, deque()
            texts, self._texts = self._texts, []
            ended = self._closed and not steps and not texts
            until = time.time_ns()
            if self._open is not None:  # its operators come when it has ended
                until = min(until, self._open[2][0][0])
        parts = [self._records(events, marks) for events, marks in steps]
        kernels, apis, markers = (
            np.concatenate([np.empty(0, form), *(part[nth] for part in parts)])
            for nth, form in enumerate((KERNEL, API, MARKER))
        )
        return Batch(
            strings=self._strings,
            kernels=kernels,
            apis=apis,
            markers=markers,
            steps=np.concatenate([np.empty(0, STEP), *(marks for _, marks in steps)]),
            texts=tuple(texts),
            loss=Loss(records=self._lost),
            until_ns=until,
            busy_ns=self._busy_ns,
            ended=ended,
        )

    def order(self, mode: str) -> None:
        """Records steps that begin from now on, unless ``mode`` is ``off``."""
        self._on = mode != "off" and not self._closed

    def close(self) -> None:
        """Records no more steps; what has been recorded can still be taken, and is the last."""
        with self._ready:
            self._on = False
            self._closed = True
            self._ready.notify()

    def _text(self, text: str) -> int:
        index = self._index.get(text)
        if index is None:
            index = self._index[text] = len(self._strings)
            self._strings.append(text)
        return index

    def _texts_of(self, names: list[str], rows: NDArray[Any]) -> list[int]:
        places: list[int] = rows.tolist()
        return [self._text(names[place]) for place in places]

    def _records(
        self, events: list[Any], marks: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Returns the kernels, calls and ranges that a step's events stand for."""
        events = [one for one in events if one.end_ns() >= one.start_ns() > 0]
        names = [str(one.name()) for one in events]
        start = np.array([one.start_ns() for one in events], np.int64)
        end = np.array([one.end_ns() for one in events], np.int64)
        lane = np.array([one.start_thread_id() for one in events], np.int64)
        gloo = np.array([name.startswith(_GLOO) for name in names], np.bool_)
        operator = np.flatnonzero([name.startswith("aten::") for name in names])
        zero = np.zeros(len(events), np.int8)
        around = innermost_enclosing(lane[operator], start[operator], end[operator], zero[operator])
        # A collective outlives its call: it stands in what was open when it began.
        parent = innermost_enclosing(lane, start, np.where(gloo, start, end), gloo.astype(np.int8))
        work = np.sort(np.concatenate([operator[around < 0], np.flatnonzero(gloo)]))
        callers, of_call = np.unique(
            np.where(gloo[work] & (parent[work] >= 0), parent[work], work), return_inverse=True
        )
        thread = lane.copy()
        for nth in (nth for nth, name in enumerate(names) if name == _MARK):
            thread[lane == lane[nth]] = int(marks["thread"][0])
        correlation = self._correlation + 1 + np.arange(len(callers))
        self._correlation += len(callers)
        begin = int(marks["time_ns"][0])
        kernels, apis = np.zeros(len(work), KERNEL), np.zeros(len(callers), API)
        kernels["start"], kernels["end"] = start[work], end[work]
        kernels["correlation"] = correlation[of_call]
        kernels["stream"] = np.where(gloo[work], _GLOO_STREAM, lane[work])
        kernels["name"] = self._texts_of([_kernel_name(name) for name in names], work)
        apis["start"], apis["end"] = np.maximum(start[callers], begin), end[callers]
        apis["correlation"], apis["thread"] = correlation, thread[callers]
        apis["name"] = self._texts_of(names, callers)
        told = [one.is_user_annotation() and one.name() != _MARK for one in events]
        ranges = np.setdiff1d(np.flatnonzero(told), np.concatenate([work, callers]))
        markers = np.zeros(len(ranges), MARKER)
        markers["start"], markers["end"] = np.maximum(start[ranges], begin), end[ranges]
        markers["thread"], markers["bytes"], markers["peer"] = thread[ranges], -1, -1
        markers["name"] = self._texts_of(names, ranges)
        called = np.unique(of_call[gloo[work]])
        return kernels, apis, np.concatenate([markers, self._calls(apis[called])])

    def _calls(self, apis: NDArray[Any]) -> NDArray[Any]:
        """Returns calls of gloo as ranges that name the communicator, as NCCL's do.

        gloo names none; where the program has one group only, it is that.
        """
        group = self._only_group()
        markers = np.zeros(len(apis) if group else 0, MARKER)
        if group:
            for name in ("start", "end", "thread", "name"):
                markers[name] = apis[name]
            markers["domain"] = self._text("gloo")
            markers["group"], markers["bytes"], markers["peer"] = group, -1, -1
        return markers

    def _only_group(self) -> int:
        """Returns a number for the program's process group; 0 if it has several, or none."""
        c10d: Any = sys.modules.get("torch.distributed.distributed_c10d")
        groups: Any = getattr(getattr(c10d, "_world", None), "pg_map", ())
        return zlib.crc32(b"gloo") if len(groups) == 1 else 0


def _kernel_name(name: str) -> str:
    """Returns ``all_reduce (gloo)`` for ``gloo:all_reduce``: a collective of that family."""
    return f"{name.removeprefix(_GLOO)} (gloo)" if name.startswith(_GLOO) else name
