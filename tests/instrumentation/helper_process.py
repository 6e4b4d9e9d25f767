"""The helper process with a pipe for a region: a line is a step's number, its end the worker's."""

from __future__ import annotations

import os
import select
import sys
import types
import urllib.request

from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.sending import helper, wiring
from kat_otel.instrumentation.steps.tree import Counts
from kat_otel.lmdia.recording import Group
from tests.instrumentation.simulated import program_of, steps_of, worker_of

GROUP = Group(program_of(2), 600)


class RegionSource:
    """Reads lines."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.rest = b""

    def take(self, timeout: float) -> Batch:
        if not select.select([self.fd], [], [], timeout)[0]:
            return Batch()
        data = os.read(self.fd, 65_536)
        *lines, self.rest = (self.rest + data).split(b"\n")
        if b"crash" in lines:
            os._exit(3)
        return Batch(texts=lines, ended=not data)

    def order(self, mode: str) -> None:
        url = f"{os.environ['OTEL_EXPORTER_OTLP_ENDPOINT']}/ordered/{mode}"
        with urllib.request.urlopen(url, b""):  # so that the test hears of it
            pass

    def close(self) -> None:
        pass


class StepMaker:
    """Plays the steps whose numbers it reads."""

    def __init__(self, _: object) -> None:
        self.worker = worker_of(GROUP, 1)
        self.counts = Counts()

    def add(self, batch: Batch) -> list:
        return [steps_of(GROUP, int(line))[1] for line in batch.texts]

    def flush(self) -> list:
        return []


if __name__ == "__main__":
    region = types.ModuleType("region")
    vars(region)["RegionSource"] = RegionSource
    sys.modules["kat_otel.instrumentation.capture.region"] = region
    wiring.StepMaker = StepMaker
    sys.exit(helper.main(sys.argv[1:]))
