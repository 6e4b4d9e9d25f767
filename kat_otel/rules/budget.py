"""Alerts on GPU time lost over a budget, whatever it was lost by.

Each looks at two windows: the long one says that it matters, the short one that it goes on, so that
the alert ends soon after its cause (Site Reliability Workbook, chapter 5).
"""

from __future__ import annotations

from typing import Final

from kat_otel.dashboards import names
from kat_otel.rules.records import LOST_RATIO
from kat_otel.rules.rule import Alert, Group

__all__ = ["BUDGET", "group"]

BUDGET: Final = 0.01
"""Share of an instance's GPU time that may be lost, unless somebody says otherwise."""

_FAST: Final = 10
"""Times the budget: at this rate a day's is gone in two hours and a half."""

_ID: Final = f"$labels.{names.INSTANCE}"


def group(budget: float = BUDGET) -> Group:
    """Returns the alerts of a budget.

    Args:
        budget: share of an instance's GPU time, above 0 and below 1.
    """
    fast = _FAST * budget
    return Group(
        "kat-budget",
        [
            Alert(
                "KatLostGpuTime",
                "page",
                f"an instance loses more than {_percent(fast)} of its GPU time, over an hour",
                f"{LOST_RATIO}1h > {fast:.4g} and {LOST_RATIO}5m > {fast:.4g}",
                "5m",
                summary=_summary("hour"),
                where=_who("1h"),
                cost=f"ten times the budget of {_percent(budget)}: a day's is gone in 2.4 hours.",
                action=_ACTION,
                runbook="runbooks/index.html",
            ),
            Alert(
                "KatLostGpuTime",
                "ticket",
                f"an instance loses more than {_percent(budget)} of its GPU time, over a day",
                f"{LOST_RATIO}1d > {budget:.4g} and {LOST_RATIO}1h > {budget:.4g}",
                "30m",
                summary=_summary("day"),
                where=_who("1d"),
                cost=f"more than the budget of {_percent(budget)}.",
                action=_ACTION,
                runbook="runbooks/index.html",
            ),
        ],
    )


_ACTION: Final = (
    "look at the worst ranks of the fleet's dashboard and at what they share (host, rack, switch); "
    "each component has its runbook."
)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _summary(time: str) -> str:
    return (
        f"{{{{ {_ID} }}}} lost {{{{ $value | humanizePercentage }}}} of its GPU time "
        f"in the last {time}"
    )


def _who(window: str) -> str:
    """A template that names the three components and the three ranks that cost most."""
    components = _worst(names.LOST, names.COMPONENT, window)
    ranks = _worst(names.CAUSED, names.RANK, window)
    return f"{components}; ranks {ranks}."


def _worst(metric: str, label: str, window: str) -> str:
    of = f"{metric}{{{names.INSTANCE}=%q}}"
    query = f"topk(3, sum by ({label}) (increase({of}[{window}])) > 0)"
    return (
        f'{{{{ range $at, $one := printf "{query}" {_ID} | query }}}}'
        f"{{{{ if $at }}}}, {{{{ end }}}}"
        f"{{{{ .Labels.{label} }}}} ({{{{ .Value | humanizeDuration }}}}){{{{ end }}}}"
    )
