"""The compiled walker under fire: mutated requests that end where readable memory ends.

``python bench/fuzz_decode.py [INPUTS]`` (default 1,000,000). Every input lies so that its last
byte is the last of a page, or its first the first, and the page beyond is closed by
mprotect(PROT_NONE): one byte read too far, and the process dies of SIGSEGV. A share is read by
the protobuf library too: both must refuse, or agree in every column. With NUMBA_DISABLE_JIT=1 the
same source runs as Python, and every single access to any memory is checked against its array.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kat_otel.errors import DecodeError
from kat_otel.otlp import Rejected, reference
from kat_otel.otlp.intern import SharedStrings
from kat_otel.otlp.request import decode
from tests.otlp.requests import (
    difference,
    mutated,
    refuses_groups_only,
    request,
    with_a_mutated_span,
)

PAGE = mmap.PAGESIZE
ROOM = 64 * PAGE
COMPARED = 10  # one in so many is read by the library too


class Guarded:
    """Readable memory between two pages that nobody may touch."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, ROOM + 2 * PAGE)
        self.memory = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        base = self.memory.ctypes.data
        for guard in (base, base + PAGE + ROOM):
            if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, data: bytes, *, at_end: bool) -> NDArray[np.uint8]:
        """Returns the bytes as an array that touches a guard."""
        begin = PAGE + ROOM - len(data) if at_end else PAGE
        room = self.memory[begin : begin + len(data)]
        room[:] = np.frombuffer(data, np.uint8)
        return room


def seeds(rng: random.Random, count: int) -> list[bytes]:
    """Requests of all oddities; what is too long for the guarded memory is left out."""
    made = [request(rng, rng.choice([0.0, 0.0, 0.3, 1.0])) for _ in range(count)]
    return [data for data in made if 0 < len(data) < ROOM // 2]


def run(inputs: int, seed: int) -> Counter[str]:
    """Decodes ``inputs`` mutated requests; returns what became of them."""
    rng = random.Random(seed)
    guarded = Guarded()
    strings = SharedStrings(max_strings=5_000)
    counts: Counter[str] = Counter()
    pool: list[bytes] = []
    for turn in range(inputs):
        if turn % 2_000 == 0:
            pool = seeds(rng, 300)
        data = mutated(rng, rng.choice(pool)) if turn % 3 else with_a_mutated_span(rng)
        data = data[: ROOM - 1]
        raw = guarded.place(data, at_end=turn % 4 != 0)
        counts["inputs"] += 1
        counts["bytes"] += len(data)
        ours: object
        taken = Rejected()
        try:
            ours = decode(data, taken, strings.current(), None, raw)
            counts["accepted"] += 1
            counts["spans"] += len(ours)
            counts["spans rejected"] += taken.spans
        except DecodeError as error:
            ours = error
            counts["refused"] += 1
        if turn % COMPARED == 0:
            compare(data, ours, taken, counts)
    return counts


def compare(data: bytes, ours: object, taken: Rejected, counts: Counter[str]) -> None:
    """Counts how the library's answer compares; prints an input on which they differ."""
    counts["compared"] += 1
    rejected = Rejected()
    theirs: object
    try:
        theirs = reference.table_of(reference.parse(data), rejected)
    except DecodeError as error:
        theirs = error
    if isinstance(ours, DecodeError) or isinstance(theirs, DecodeError):
        if isinstance(ours, DecodeError) and isinstance(theirs, DecodeError):
            counts["refused by both"] += 1
            return
        if isinstance(ours, DecodeError) and refuses_groups_only(ours):
            counts["groups refused by us alone, on purpose"] += 1
            return
        found = f"refused by one: {ours!r} and {theirs!r}"
    else:
        found = difference(ours, theirs) or ("rejected" if taken != rejected else "")
    if found:
        counts["DIFFERENT"] += 1
        print(f"different: {found[:300]}\n  {data.hex()}")
    else:
        counts["equal in every column"] += 1


def main() -> int:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    begin = time.monotonic()
    with np.errstate(over="ignore"):  # NumPy's words wrap around as the machine's do
        counts = run(inputs, seed)
    for name, count in counts.items():
        print(f"{count:14,}  {name}")
    print(f"{time.monotonic() - begin:14,.0f}  seconds; no read beyond the guards")
    return 1 if counts["DIFFERENT"] else 0


if __name__ == "__main__":
    sys.exit(main())
