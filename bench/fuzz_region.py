"""Does a region that the other side scribbles into crash anybody? It must not.

``python bench/fuzz_region.py [reader|worker [EXAMPLES]]``: 20,000 of each by default. For the
reader, a recorded region is spoilt and read; for the worker, its reader's half is spoilt while it
captures. A crash is a signal; nonsense that comes out is an AssertionError.
"""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.records import KINDS, Batch, Edge
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation.capturing import rows
from tests.instrumentation.standin import Standin

PAGE = 4_096
QUEUES = 2 * PAGE
RING = 1 << 20
INDEX = 32_768 * 8


def check(batch: Batch) -> None:
    """Whatever was read must be something that those who read it can index and subtract."""
    for name in KINDS:
        column = getattr(batch, name)
        fields = column.dtype.names
        for field in {"name", "domain"} & set(fields):
            assert (column[field] < len(batch.strings)).all(), (name, field)
        if "start" in fields:
            assert (column["start"] <= column["end"]).all(), name
            assert (column["start"] > 0).all(), name


def record() -> tuple[Capture, mmap.mmap]:
    """A region with records of all kinds, marks and texts, that nobody has read."""
    standin = Standin()
    capture = Capture.start(Settings(cupti=standin.path, buffer_mib=2))
    kinds = ("kernel", "copy", "peer", "set", "graph", "runtime", "sync", "external", "overhead")
    sent = np.concatenate([rows(kind, 150) for kind in kinds])
    names = ["cudaLaunchKernel", "gemm"]
    for _ in range(5):
        standin.replay(sent, names, time.time_ns() - 10**10)
        standin.wait()
        capture.mark(1, 0, Edge.BEGIN)
        capture.say(b'{"worker": {}}')
        capture.flush()
    return capture, mmap.mmap(capture.fd, 0)


def spoil(region: mmap.mmap, rng: np.random.Generator) -> list[int]:
    """Overwrites a few words, most of them where they hurt; returns where."""
    begins = [0, PAGE, QUEUES, QUEUES + RING, len(region) - (2 << 20)]
    lengths = [256, QUEUES - PAGE, 2_048, 512, 64 << 10]
    words = (0, 1, 7, 8, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
    spoilt: list[int] = []
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, len(begins)))
        at = begins[place] + int(rng.integers(0, lengths[place])) // 4 * 4
        value = int(rng.choice(np.array(words, np.uint64)))
        if rng.integers(0, 2):
            value = int(rng.integers(0, 2**63))
        size = int(rng.choice([1, 4, 8]))
        region[at : at + size] = value.to_bytes(8, "little")[:size]
        spoilt.append(at)
    return spoilt


def fuzz_reader(examples: int) -> int:
    """Spoils and reads a recorded region; returns how often the header was refused."""
    capture, region = record()
    whole = region[:]
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(examples):
        spoilt = spoil(region, rng)
        try:
            source = RegionSource(capture.fd)
        except CaptureError:
            refused += 1
        else:
            for _ in range(3):
                check(source.take(0))
            source.close()
        region[:QUEUES] = whole[:QUEUES]
        for at in spoilt:
            region[at : at + 8] = whole[at : at + 8]
    capture.stop()
    return refused


def fuzz_worker(examples: int) -> int:
    """Scribbles into the reader's half while a worker captures and reads; returns kernels read."""
    standin = Standin()
    capture = Capture.start(Settings(cupti=standin.path, buffer_mib=2))
    source = RegionSource(capture.fd)
    region = mmap.mmap(capture.fd, 0)
    half = 192  # offset of struct kat_header's part that the reader writes, and its end
    rng = np.random.default_rng(2)
    read = 0
    for i in range(examples):
        if i % 100 == 0:
            standin.wait()
            standin.load(2_000, 200_000)
        value = int(rng.integers(0, 2**63)) if rng.integers(0, 2) else int(rng.integers(0, 64))
        place = half + 4 * int(rng.integers(0, 8))
        if rng.integers(0, 2):  # indices that it gives back
            place = PAGE + 32 * 32 + 4 * int(rng.integers(0, 32))
        region[place : place + 4] = value.to_bytes(8, "little")[:4]
        capture.mark(i, 0, Edge.BEGIN)
        capture.say(b"text")
        batch = source.take(0)
        check(batch)
        read += len(batch.kernels)
        if i % 50 == 0:
            capture.flush()
    standin.wait()
    capture.stop()
    return read


def main() -> None:
    sides = sys.argv[1:2] or ["reader", "worker"]
    examples = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    for side in sides:
        began = time.monotonic()
        if side == "reader":
            what = f"{fuzz_reader(examples)} of them refused by their header"
        else:
            what = f"{fuzz_worker(examples)} kernels read meanwhile"
        print(f"{side}: {examples:,} spoilt, {what}, no crash, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
