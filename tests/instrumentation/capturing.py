"""A capture of this process by the stand-in, and all that its reader finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.records import KINDS as COLUMNS
from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation.standin import KINDS, ROW, Standin


@dataclass
class Running:
    """A capture and its reader."""

    standin: Standin
    capture: Capture
    source: RegionSource
    batches: list[Batch] = field(default_factory=list)

    def all(self) -> Batch:
        """Waits for the stand-in, stops capture, and returns all that was and is read as one."""
        self.standin.wait()
        self.capture.stop()
        while not (batch := self.source.take(1)).ended:
            self.batches.append(batch)
        return join([*self.batches, batch])


def join(batches: list[Batch]) -> Batch:
    named = {name: np.concatenate([getattr(b, name) for b in batches]) for name in COLUMNS}
    steps = np.concatenate([b.steps for b in batches])
    texts = [text for b in batches for text in b.texts]
    return replace(batches[-1], **named, steps=steps, texts=texts)


@contextmanager
def running(version: int = 130500, **settings: Any) -> Iterator[Running]:
    standin = Standin(version)
    settings.setdefault("cupti", standin.path)
    settings.setdefault("buffer_mib", 2)
    capture = Capture.start(Settings(**settings))
    source = RegionSource(capture.fd)
    try:
        yield Running(standin, capture, source)
    finally:
        standin.wait()
        capture.stop()
        source.close()


def rows(kind: str, count: int, **columns: Any) -> NDArray[Any]:
    """Rows of a kind for the stand-in; without times they are 1 µs long, 10 µs apart."""
    made = np.zeros(count, ROW)
    made["kind"] = KINDS[kind]
    made["start"] = 1_000 + 10_000 * np.arange(count)
    made["end"] = made["start"] + 1_000
    for name, values in columns.items():
        made[name] = values
    return made
