"""What a kernel costs from its records to a closed step, and what a step's digest costs.

Batches of ``--records`` records of a worker that launches kernels one by one, a tenth of them
collectives under NCCL's ranges, in the order in which capture hands them over (kernels by their
ends, calls by theirs). Measured: :class:`StepMaker` from batches to span tables, CPU time of the
process for a kernel with its launch; ``digest``: the digests' bytes of those tables, CPU time for
a step; both by the native library, and by NumPy alone. The best of several rounds; copying as many
bytes as a kernel's records have stands beside it, so that a busy machine is seen.

Run: python bench/steps.py [--kernels 300,1000,3000] [--records 100000] [--rounds 20]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from kat_otel.instrumentation.capture.records import API, KERNEL, MARKER, STEP, Batch, Edge
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.filling import by_numpy
from kat_otel.instrumentation.steps.putting import Putting
from kat_otel.instrumentation.steps.tree import StepMaker

T0 = 1_700_000_000_000_000_000
PERIOD_NS = 5_000
NAMES = [f"_ZN5layer{len(f'kernel_{i}')}kernel_{i}IfLi{i}EEEvPKT_Pf" for i in range(30)]
COLLECTIVE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
STRINGS = ("", "cudaLaunchKernel", "NCCL", "ncclAllReduce", COLLECTIVE, *NAMES)


def batch(first: int, steps: int, kernels: int) -> Batch:
    """Steps ``first`` and following."""
    count = steps * kernels
    nth, place = np.divmod(np.arange(count), kernels)
    length = kernels * PERIOD_NS + 50_000
    launched = T0 + (first + nth) * length + place * PERIOD_NS + 1_000
    calls, work = np.zeros(count, API), np.zeros(count, KERNEL)
    calls["start"], calls["end"], calls["thread"], calls["name"] = launched, launched + 2_000, 77, 1
    calls["correlation"] = work["correlation"] = 1 + first * kernels + np.arange(count)
    work["start"], work["end"], work["stream"] = launched + 2_500, launched + 6_000, 7
    met = place % 10 == 9
    work["name"] = np.where(met, 4, 5 + place % len(NAMES))
    work["grid"] = np.stack([place % 50 + 1, place % 3 + 1, np.ones_like(place)], axis=1)
    work["block"] = [256, 1, 1]
    ranges = np.zeros(int(met.sum()), MARKER)
    ranges["start"], ranges["end"] = launched[met] - 200, launched[met] + 2_200
    ranges["thread"], ranges["name"], ranges["domain"] = 77, 3, 2
    ranges["group"], ranges["bytes"], ranges["peer"] = 0xABC123, 4_096, -1
    marks = np.zeros((steps, 2), STEP)
    begin = T0 + (first + np.arange(steps)) * length
    marks["time_ns"] = np.stack([begin, begin + kernels * PERIOD_NS + 10_000], axis=1)
    marks["step"], marks["edge"], marks["thread"] = (
        (first + np.arange(steps))[:, None],
        [Edge.BEGIN, Edge.END],
        77,
    )
    return Batch(
        strings=STRINGS,
        kernels=work,
        apis=calls,
        markers=ranges,
        steps=marks.reshape(-1),
        until_ns=int(begin[-1]) + length,
    )


WAYS = {  # columns of steps, forms of records, digests
    "native": lambda: (StepMaker(Settings()), Digests.fastest()),
    "NumPy": lambda: (StepMaker(Settings(), by_numpy, Putting), Digests()),
}


def measure(way: str, kernels: int, records: int, rounds: int) -> tuple[float, float, float]:
    """Returns seconds a kernel, seconds a digest, and seconds to copy a kernel's records."""
    steps = max(1, records // (2 * kernels))
    maker, digests = WAYS[way]()
    whole = digest = copied = float("inf")
    for nth in range(rounds):
        one = batch(nth * steps, steps, kernels)
        begin = time.process_time()
        made = maker.add(one)
        whole = min(whole, (time.process_time() - begin) / max(1, len(made) * kernels))
        begin = time.process_time()
        for step in made:
            digests.of(step.table, 1, 0)
        digest = min(digest, (time.process_time() - begin) / max(1, len(made)))
        begin = time.process_time()
        one.kernels.tobytes(), one.apis.tobytes()
        copied = min(copied, (time.process_time() - begin) / (steps * kernels))
    return whole, digest, copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", default="300,1000,3000")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    print(
        f"{'kernels a step':>14}{'by':>8}{'µs a kernel':>14}{'digest, µs':>12}"
        f"{'copying, µs a kernel':>22}"
    )
    for kernels in map(int, given.kernels.split(",")):
        for way in WAYS:
            whole, digest, copied = measure(way, kernels, given.records, given.rounds)
            print(
                f"{kernels:14,}{way:>8}{whole * 1e6:14.3f}{digest * 1e6:12.0f}{copied * 1e6:22.3f}"
            )


if __name__ == "__main__":
    main()
