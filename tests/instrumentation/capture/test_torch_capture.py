"""KAT_CAPTURE=torch: marks of the session reach the profiler one step at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kat_otel.instrumentation.capture import torch_capture
from kat_otel.instrumentation.capture.records import Edge, StepFlag
from kat_otel.instrumentation.capture.torch_capture import TorchCapture
from kat_otel.instrumentation.settings import Settings


class Recorder:
    """Stands for TorchProfilerSource where there is no PyTorch: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def step_begin(self, step: int, micro: int, flags: StepFlag) -> None:
        self.told.append((step, micro, flags))

    def step_end(self) -> None:
        self.told.append("end")

    def order(self, mode: str) -> None:
        self.told.append(mode)


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> TorchCapture:
    monkeypatch.setattr(torch_capture, "TorchProfilerSource", Recorder)
    return TorchCapture(Settings(mode="digest"))


def mark(capture: TorchCapture, step: int, edge: Edge, micro: int = 0) -> None:
    capture.mark(step, micro, edge, StepFlag.NONE)


def test_a_step_begins_and_ends(capture: TorchCapture) -> None:
    mark(capture, 4, Edge.BEGIN)
    mark(capture, 4, Edge.END)
    assert capture.source.told == ["digest", (4, 0, StepFlag.NONE), "end"]


def test_a_micro_batch_or_another_thread_ends_nothing(capture: TorchCapture) -> None:
    mark(capture, 4, Edge.BEGIN)
    mark(capture, 4, Edge.BEGIN, micro=1)
    mark(capture, 4, Edge.END, micro=1)
    other = threading.Thread(target=mark, args=(capture, 4, Edge.END))
    other.start()
    other.join()
    assert capture.source.told == ["digest", (4, 0, StepFlag.NONE)]
    mark(capture, 4, Edge.END)
    assert capture.source.told[-1] == "end"
