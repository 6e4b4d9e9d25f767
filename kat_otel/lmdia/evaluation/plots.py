"""The benchmark's plots: severity against recall, false alarms against the threshold."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kat_otel.errors import KatError
from kat_otel.lmdia.evaluation.tables import planned, severities
from kat_otel.lmdia.scoring.figures import wilson
from kat_otel.lmdia.scoring.match import Outcome

__all__ = ["Curve", "false_alarms", "severity_against_recall"]

_INK: Final = "#1a1a2e"
_OURS: Final = "#c1121f"
_OTHERS: Final = (
    "#457b9d", "#2a9d8f", "#8a6d3b", "#6d597a", "#7f8c8d", "#b08968", "#3d5a80", "#84a59d",
)  # fmt: skip

_FACTORS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

Curve = tuple[Sequence[float], Sequence[float]]
"""Thresholds, as share of the chosen one, and alarms per healthy case at each."""


def severity_against_recall(methods: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Draws the share of faults found by severity, a line a method, the first one strong.

    Raises:
        KatError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure()
    axes = figure.subplots()
    steps = severities(methods.values())
    for at, (name, found) in enumerate(methods.items()):
        hits = [_hits(found, s) for s in steps]
        shares = [h / n if n else float("nan") for h, n in hits]
        colour = _OURS if at == 0 else _OTHERS[(at - 1) % len(_OTHERS)]
        axes.plot(
            [100 * s for s in steps],
            shares,
            marker="o",
            markersize=4,
            color=colour,
            linewidth=2.4 if at == 0 else 1.2,
            label=name,
            zorder=3 if at == 0 else 2,
        )
        if at == 0:
            ends = [wilson(h, n) for h, n in hits]
            axes.fill_between(
                [100 * s for s in steps],
                [low for low, _ in ends],
                [high for _, high in ends],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
    axes.set_xscale("log")
    axes.set_xticks([100 * s for s in steps], [f"{100 * s:g}" for s in steps])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.03)
    axes.set_xlabel("severity: by how much the step gets longer, %")
    axes.set_ylabel("share of faults found, with the right culprit")
    _finish(figure, axes, path)


def false_alarms(curves: Mapping[str, Curve], path: Path) -> None:
    """Draws how often healthy load raises an alarm as the threshold of each method moves.

    Raises:
        KatError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure()
    axes = figure.subplots()
    for at, (name, (thresholds, rates)) in enumerate(curves.items()):
        colour = _OTHERS[at % len(_OTHERS)]
        axes.plot(thresholds, rates, color=colour, linewidth=1.4, label=name)
    axes.axvline(1.0, color=_INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(_FACTORS, [f"{factor:g}" for factor in _FACTORS])
    axes.minorticks_off()
    axes.set_xlabel("threshold, as a multiple of the one chosen on validation")
    axes.set_ylabel("healthy cases and confounders with a false alarm")
    axes.set_ylim(-0.02, 1.03)
    _finish(figure, axes, path)


def _hits(found: Sequence[Outcome], severity: float) -> tuple[int, int]:
    faults = [f for o in found for f in o.faults if planned(f.severity) == severity]
    return sum(f.found for f in faults), len(faults)


def _figure() -> Any:
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise KatError(
            "plots need 'matplotlib', which is not installed: pip install 'kat-otel[lmdia]'"
        ) from error
    return figures.Figure(figsize=(7.2, 4.2), layout="constrained")


def _finish(figure: Any, axes: Any, path: Path) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    try:
        # No date inside: the same figures make the same file.
        figure.savefig(path, format="svg", metadata={"Date": None})
    except OSError as error:
        raise KatError(f"{path}: cannot be written ({error.strerror})") from error
