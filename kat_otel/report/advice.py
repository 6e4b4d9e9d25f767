"""What each kind means in a sentence, and what to look at next.

The next step is the diagnosis' first action; an incident without one gets what the knowledge of
the analyzer says of its component in general.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from kat_otel.analyzer import action_text, embedded
from kat_otel.verdict import Component, Incident, Kind

__all__ = ["KIND_MEANING", "next_step", "usual_step"]

KIND_MEANING: Mapping[Kind, str] = {
    "slow_kernel": "One kernel takes longer than the same kernel elsewhere.",
    "slow_rank": "Kernels of all sorts take longer than on the peers.",
    "late_launch": "The work is launched late; the kernels themselves take no longer.",
    "slow_transfer": "Moving the data takes longer, after all ranks have arrived.",
    "slow_copy": "Copies take longer than the same copies elsewhere.",
    "imbalance": "There is more work to do than on the peers.",
    "stall": "The work stops for a while and then goes on.",
    "structure": "Other operations run than on the peers.",
    "regression": "The same work takes longer than it did before.",
}
"""What each kind of incident means, in one sentence."""


@cache
def usual_step(component: Component) -> str:
    """Returns what to do next, by component, where nothing more is known.

    The knowledge is read with the first question: ``kat top`` mostly has none.
    """
    return action_text(embedded().usual(component).actions[0], None)


def next_step(incident: Incident) -> str:
    """Returns the line to read next: the diagnosis' first action if there is one, else ours."""
    actions = (incident.diagnosis or {}).get("actions")
    if isinstance(actions, list) and actions and isinstance(actions[0], str):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return actions[0]
    return usual_step(incident.component)
