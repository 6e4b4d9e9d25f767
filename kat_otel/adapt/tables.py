"""Scores as a Markdown table: a row a solver, split by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kat_otel.adapt.scores import Said, Scores, scores

__all__ = ["table"]

_HEAD: Final = (
    "split",
    "who",
    "n",
    "cause",
    "macro F1",
    "component",
    "culprits",
    "cited p / r",
    "chain",
    "abstained p / r",
    "sure (wrong)",
    "grounded",
    "cause after check",
    "s",
    "tokens in / out",
)


def table(results: Mapping[tuple[str, str], Sequence[Said]]) -> str:
    """Returns a table of results by (split, who).

    All but counts, seconds and tokens are in percent. `grounded` is what the check takes at the
    first try; where it refuses, the embedded rules' cause counts in `cause after check`.
    """
    lines = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    for (split, who), said in results.items():
        lines.append(_row([split, who, *_cells(scores(said))]))
    return "\n".join(lines) + "\n"


def _cells(found: Scores) -> list[str]:
    risk = "–" if found.risk is None else f"{100 * found.risk:.0f}"
    return [
        str(found.count),
        _percent(found.cause),
        _percent(found.cause_f1),
        _percent(found.component),
        _percent(found.culprits),
        f"{_percent(found.cited_precision)} / {_percent(found.cited_recall)}",
        _percent(found.chain),
        f"{_percent(found.abstained_precision)} / {_percent(found.abstained_recall)}",
        f"{_percent(found.covered)} ({risk})",
        _percent(found.grounded),
        _percent(found.after_check),
        f"{found.seconds:.2g}",
        f"{found.prompt:.0f} / {found.completion:.0f}" if found.prompt else "–",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
