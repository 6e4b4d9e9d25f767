"""Says how far simulated noise is from that of real traces: two-sample statistics, and plots.

    python -m kat_otel.lmdia.noise_check TRACES [--plot FILE]

The statistic is Kolmogorov and Smirnov's: the largest distance of two distribution functions, 0
for equal ones and 1 for ones apart. *fitted* rows compare with the traces that the model was
fitted to, *held out* rows with the 8-rank trace that it never saw: other GPUs, another engine,
training, a clock of whole microseconds. Those are expected to differ, and it is shown by how much.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from kat_otel.errors import KatError
from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.fit_noise import host_residuals, kernel_residuals, rank_residuals
from kat_otel.lmdia.fitted import FITTED
from kat_otel.lmdia.noise import Classes
from kat_otel.lmdia.program import Floats
from kat_otel.readers.reading import read

__all__ = ["Compared", "compared", "main", "plot", "statistic", "table"]

_DRAWS: Final = 20_000
_LEAST: Final = 20
_SEED: Final = 0


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One class of times, real beside simulated.

    Attributes:
        name: of what, and of which lengths.
        held_out: whether the model never saw the real ones.
        real, drawn: logarithms of time over expected time.
        distance: largest distance of their distribution functions.
    """

    name: str
    held_out: bool
    real: Floats
    drawn: Floats
    distance: float

    @property
    def critical(self) -> float:
        """Distance that so many equal ones reach in one of twenty draws."""
        n, m = len(self.real), len(self.drawn)
        return 1.358 * float(np.sqrt((n + m) / (n * m)))


def statistic(one: Floats, two: Floats) -> float:
    """Returns the largest distance between two empirical distribution functions."""
    both = np.sort(np.concatenate([one, two]))
    of_one = np.searchsorted(np.sort(one), both, side="right") / len(one)
    of_two = np.searchsorted(np.sort(two), both, side="right") / len(two)
    return float(np.abs(of_one - of_two).max())


def compared(traces: Path) -> list[Compared]:
    """Returns every class of the model beside the real traces in a folder."""
    pair = extract(read([traces / "nsys_h100_2gpu_wan_sp2"]).table)
    one = extract(read([traces / "vllm_gptoss_b200_tp8_rank0"]).table)
    eight = extract(read([traces / "dlrm_8rank"]).table)
    found = list(_by_class("kernel", FITTED.kernels, kernel_residuals(pair)))
    for name, classes in (
        ("gap", FITTED.gap),
        ("call", FITTED.call),
        ("latency", FITTED.latency),
        ("transfer", FITTED.transfer),
    ):
        found += _by_class(name, classes, host_residuals(one, name))
    for name, classes in (("gap", FITTED.gap), ("call", FITTED.call), ("own", FITTED.kernels)):
        of = "kernel" if name == "own" else name
        found += _by_class(of, classes, rank_residuals(eight, name), held_out=True)
    return found


def _by_class(
    name: str,
    classes: Classes,
    residuals: tuple[Floats, Floats],
    *,
    held_out: bool = False,
) -> Iterator[Compared]:
    middles, logs = residuals
    rng = np.random.default_rng(_SEED)
    below = 0.0
    for alike in classes:
        inside = (middles >= below) & (middles < alike.below_ns)
        if np.count_nonzero(inside) >= _LEAST:
            drawn = alike.spread.sample(rng, (_DRAWS,))
            ends = f"{below / 1e3:g} to {alike.below_ns / 1e3:g} µs"
            text = f"{name}, {ends}" if np.isfinite(alike.below_ns) else f"{name}, longer"
            real = logs[inside]
            yield Compared(text, held_out, real, drawn, statistic(real, drawn))
        below = alike.below_ns


def table(found: Sequence[Compared]) -> str:
    """Returns Markdown: a row a class."""
    head = "| times | of | n | distance | 5 % critical |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {c.name} | {'held out' if c.held_out else 'fitted'} | {len(c.real)} | "
        f"{c.distance:.3f} | {c.critical:.3f} |\n"
        for c in found
    )


def plot(found: Sequence[Compared], path: Path) -> None:
    """Draws the distribution functions, real beside simulated, a panel a class.

    Raises:
        KatError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise KatError(
            "plots need 'matplotlib', which is not installed: pip install 'kat-otel[lmdia]'"
        ) from error
    rows = -(-len(found) // 4)
    figure = figures.Figure(figsize=(11, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, 4, squeeze=False).ravel()
    for panel, one in zip(panels, found, strict=False):
        for logs, colour, label in (
            (one.real, "#c1121f", "real"),
            (one.drawn, "#457b9d", "simulated"),
        ):
            ordered = np.sort(logs)[:: max(1, len(logs) // 400)]
            panel.plot(
                100 * (np.exp(ordered) - 1),
                np.linspace(0, 1, len(ordered)),
                color=colour,
                linewidth=1.2,
                label=label,
            )
        low, high = np.quantile(one.real, (0.01, 0.99))
        panel.set_xlim(100 * (np.exp(low) - 1) - 1, 100 * (np.exp(high) - 1) + 1)
        panel.set_title(f"{one.name}{' (held out)' if one.held_out else ''}", fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("from the expected time, %", fontsize=9)
    figure.supylabel("share of times at most so long", fontsize=9)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise KatError(f"{path}: cannot be written ({error.strerror})") from error


def main(arguments: Sequence[str]) -> None:
    """Prints the table, and draws the plot if asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    found = compared(options.traces)
    sys.stdout.write(table(found))
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
