"""Fits :mod:`kat_otel.lmdia.noise` to healthy real traces and prints the figures.

    python -m kat_otel.lmdia.fit_noise TRACES

Sources, in the folder of real traces (see the tests for where it comes from):

- kernels: ``nsys_h100_2gpu_wan_sp2``, the same kernels on two GPUs; the spread of one GPU is
  that of the logarithm of the ratio over the square root of two;
- gaps, calls, latencies and transfers: ``vllm_gptoss_b200_tp8_rank0``, repeated layers of one
  rank, the first tenth left out as warm-up;
- for comparison, not used in the model: ``dlrm_8rank``, the same calls on eight ranks (whole
  microseconds, and two of its ranks launch late).

A healthy start of the step on several ranks is in none of them; the typical (quartile)
spread of one launch gap stands in for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kat_otel.kernels import family
from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.noise import PROBABILITIES, Classes, LengthClass, NoiseModel, Spread
from kat_otel.lmdia.program import Floats, Mask, Program
from kat_otel.readers.reading import read
from kat_otel.spans import SpanTable

__all__ = ["fit", "host_residuals", "kernel_residuals", "main", "rank_residuals"]

_KERNEL_BOUNDS_NS = (5_000.0, 20_000.0, 100_000.0, float("inf"))
_HOST_BOUNDS_NS = (10_000.0, 30_000.0, 100_000.0, float("inf"))
_MIN_SAMPLES = 20
_SHORTEST_NS = 500.0
_MIN_REPEATS = 20
_COUNTED_NS = 8_000.0
"""Shortest times compared between ranks whose clock counts whole microseconds."""
_WARM_UP = 0.1
_QUARTILE_TO_DEVIATION = 1 / 1.349


def fit(two_gpus: SpanTable, one_rank: SpanTable) -> NoiseModel:
    """Returns the model.

    Args:
        two_gpus: the same kernels on two GPUs.
        one_rank: one rank that repeats layers, with its launches.
    """
    repeated = extract(one_rank)
    gap = host_residuals(repeated, "gap")
    return NoiseModel(
        kernels=_kernel_classes(extract(two_gpus)),
        gap=_classes(*gap, _HOST_BOUNDS_NS),
        call=_classes(*host_residuals(repeated, "call"), _HOST_BOUNDS_NS),
        latency=_classes(*host_residuals(repeated, "latency"), _HOST_BOUNDS_NS),
        transfer=_classes(*host_residuals(repeated, "transfer"), (float("inf"),)),
        start_ns=_gap_deviation_ns(*gap),
    )


def kernel_residuals(pair: Program) -> tuple[Floats, Floats]:
    """Returns mean and one GPU's log(time / expected time) of kernels that run on both of two."""
    both = np.all(pair.present, axis=0) & pair.compute
    first, second = pair.own[:, both]
    logs, mean = np.log(first / second), (first + second) / 2
    around = np.zeros_like(logs)
    below = 0.0
    for bound in _KERNEL_BOUNDS_NS:
        inside = (mean >= below) & (mean < bound)
        around[inside] = logs[inside] - np.median(logs[inside])
        below = bound
    # A difference of two draws: symmetric by construction, sqrt(2) wider than one draw.
    return np.tile(mean, 2), np.concatenate([around, -around]) / np.sqrt(2)


def host_residuals(repeated: Program, name: str) -> tuple[Floats, Floats]:
    """Returns median and log(time / median) of a rank's gap, call, latency or transfer times."""
    if name == "transfer":
        return _repeats(repeated, repeated.own, only=repeated.collectives)
    return _repeats(repeated, getattr(repeated, name))


def rank_residuals(ranks: Program, name: str) -> tuple[Floats, Floats]:
    """Returns median over the ranks and log(time / median) of gap, call or own kernel time."""
    common = np.all(ranks.present, axis=0)
    times = getattr(ranks, name)[:, common & ranks.compute if name == "own" else common]
    middle = np.median(times, axis=0)
    long = middle >= _COUNTED_NS
    logs = np.log(np.maximum(times[:, long], _SHORTEST_NS) / middle[long])
    return np.tile(middle[long], ranks.ranks), logs.ravel()


def _spread(logs: Floats) -> Spread:
    return Spread(tuple(round(float(q), 4) for q in np.quantile(logs, PROBABILITIES)))


def _classes(middles: Floats, logs: Floats, bounds: Sequence[float]) -> Classes:
    """Returns a class for each bound that has samples; the last one found is open upwards."""
    classes: list[LengthClass] = []
    below = 0.0
    for bound in bounds:
        chosen = (middles >= below) & (middles < bound)
        if np.count_nonzero(chosen) >= _MIN_SAMPLES:
            longest = round(float(middles[chosen].max()))
            classes.append(LengthClass(bound, longest, _spread(logs[chosen])))
        below = bound
    return (*classes[:-1], replace(classes[-1], below_ns=float("inf")))


def _kernel_classes(pair: Program) -> Classes:
    both = np.all(pair.present, axis=0) & pair.compute
    first, second = pair.own[:, both]
    logs, mean = np.log(first / second), (first + second) / 2
    classes: list[LengthClass] = []
    below = 0.0
    for bound in _KERNEL_BOUNDS_NS:
        inside = (mean >= below) & (mean < bound)
        middle = float(np.median(logs[inside]))
        # A difference of two draws: symmetric by construction, sqrt(2) wider than one draw.
        around = logs[inside] - middle
        both_ways = np.concatenate([around, -around]) / np.sqrt(2)
        standing = round(float(abs(middle) / np.sqrt(2)), 4)
        longest = round(float(mean[inside].max()))
        classes.append(LengthClass(bound, longest, _spread(both_ways), standing))
        below = bound
    return tuple(classes)


def _contexts(program: Program) -> list[tuple[str, ...]]:
    """Returns each operation's kernel family with its two neighbours on either side."""
    names = ["", "", *(family(op.name) for op in program.operations), "", ""]
    return [tuple(names[i : i + 5]) for i in range(len(program))]


def _repeats(program: Program, values: Floats, only: Mask | None = None) -> tuple[Floats, Floats]:
    """Returns median and log(value / median) of operations that repeat with the same neighbours."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, context in enumerate(_contexts(program)):
        if i >= _WARM_UP * len(program) and (only is None or only[i]):
            groups.setdefault(context, []).append(i)
    logs: list[Floats] = []
    middles: list[Floats] = []
    for places in groups.values():
        times = values[0, places]
        middle = float(np.median(times))
        if len(places) >= _MIN_REPEATS and middle >= _SHORTEST_NS:
            logs.append(np.log(np.maximum(times, _SHORTEST_NS) / middle))
            middles.append(np.full(len(places), middle))
    return np.concatenate(middles), np.concatenate(logs)


def _gap_deviation_ns(middles: Floats, logs: Floats) -> float:
    low, high = np.quantile(logs, (0.25, 0.75))
    return round(float(high - low) * _QUARTILE_TO_DEVIATION * float(np.median(middles)), -2)


def _compare(ranks: Program) -> list[str]:
    """Returns what eight ranks of another job say about the same spreads, for comparison."""
    return [
        f"dlrm_8rank {name} below {alike.below_ns:g} ns: {alike.spread.quantiles}"
        for name in ("gap", "call", "own")
        for alike in _classes(*rank_residuals(ranks, name), _HOST_BOUNDS_NS)
    ]


def main(arguments: Sequence[str]) -> None:
    """Prints the model as Python source, and the comparison."""
    root = Path(arguments[0])
    tables = [
        read([root / name]).table
        for name in ("nsys_h100_2gpu_wan_sp2", "vllm_gptoss_b200_tp8_rank0", "dlrm_8rank")
    ]
    lines = [f"# probabilities {PROBABILITIES}", f"FITTED = {fit(tables[0], tables[1])!r}"]
    lines += [f"# {line}" for line in _compare(extract(tables[2]))]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
