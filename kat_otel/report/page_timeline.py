"""The timeline as the page's template and script want it: a few texts, and columns as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup

from kat_otel.report.sentences import duration_text, printable
from kat_otel.report.timeline import Band, Look, Role, Timeline
from kat_otel.verdict import Incident
from kat_otel.wording import rank_list, ranks_text

__all__ = ["embedded_json", "timeline_view"]

_MAX_NAME = 400
_ROLE_TEXT = {Role.CULPRIT: "culprit", Role.VICTIM: "waits", Role.OTHER: ""}


def embedded_json(text: str) -> Markup:
    r"""Returns JSON that may stand inside ``<script>``.

    ``<``, ``>`` and ``&`` only occur inside JSON's strings, where ``\u003c`` means the same; so
    no kernel name can close the element or open a comment. The rest becomes ASCII, so that
    nothing in it can turn the reading direction of the source either.
    """
    safe = re.sub(r"[<>&]", lambda c: f"\\u{ord(c[0]):04x}", text)
    safe = re.sub(r"[^\x00-\x7f]", lambda c: json.dumps(c[0])[1:-1], safe)
    return Markup(safe)  # noqa: S704 - escaped in the line above, for this very place


def timeline_view(shown: Timeline, incident: Incident) -> dict[str, Any]:
    """Returns the variables of the template's timeline figure."""
    spans, late = shown.spans, [ghost for ghost in shown.ghosts if ghost.late]
    stage = shown.scene.stage
    of_step = f"step {stage.step}" if stage.step is not None else "the step"
    victims = [lane.rank for lane in shown.lanes if lane.role == Role.VICTIM]
    title = "Who waits for whom" if victims and stage.comparable else "What the ranks do"
    label = (
        f"Timeline of {ranks_text([lane.rank for lane in shown.lanes])} in {of_step}. "
        f"Culprit: {ranks_text(incident.culprit.ranks)}."
    )
    if victims:
        label += f" Waiting: {ranks_text(victims)}."
    merged = int(shown.spans.merged.sum()) - len(shown.spans)
    return {
        "title": title,
        "label": label,
        "lanes": [
            {
                "rank": lane.rank,
                "role": _ROLE_TEXT[lane.role],
                "wait": duration_text(lane.wait_ns) if lane.wait_ns else "-",
            }
            for lane in shown.lanes
        ],
        "late_texts": [
            f"Rank {shown.lanes[ghost.lane].rank} arrives {duration_text(ghost.excess_ns)} late, "
            f"{duration_text(ghost.actual_start)} into the step."
            for ghost in late
        ],
        "comparable": stage.comparable,
        "has_host": bool((spans.band == Band.HOST).any()),
        "has_copies": bool((spans.look == Look.COPY).any()),
        "has_ghosts": bool(shown.ghosts),
        "has_late": bool(late),
        "focused": shown.view != shown.whole,
        "merged": merged,
        "notes": _notes(shown),
        "data": embedded_json(_data(shown)),
    }


def _notes(shown: Timeline) -> list[str]:
    notes: list[str] = []
    if not shown.scene.stage.comparable:
        notes.append(
            "The clocks of the ranks have no event in common: every rank begins at its own first "
            "span, so positions of different ranks can't be compared, and waiting is what a "
            "collective took longer than on the rank where it was shortest."
        )
    if shown.hidden_ranks:
        drawn = rank_list([lane.rank for lane in shown.lanes])
        notes.append(
            f"{shown.hidden_ranks:,} more ranks were read but are not drawn; drawn are the "
            f"culprits and those that wait longest: {drawn}."
        )
    return notes


def _data(shown: Timeline) -> str:
    spans = shown.spans
    columns = ("lane", "band", "look", "start", "duration", "name", "merged", "fill", "flagged")
    return json.dumps(
        {
            "view": list(shown.view),
            "whole": list(shown.whole),
            "length": shown.length_ns,
            "lanes": [
                {"rank": lane.rank, "role": int(lane.role), "wait": lane.wait_ns}
                for lane in shown.lanes
            ],
            "names": [printable(name[:_MAX_NAME]) for name in spans.names],
            "spans": {column: getattr(spans, column).tolist() for column in columns},
            "ghosts": [
                {
                    "lane": ghost.lane,
                    "band": int(ghost.band),
                    "from": ghost.expected_start,
                    "to": ghost.expected_end,
                    "actual": ghost.actual_start,
                    "excess": ghost.excess_ns,
                    "late": ghost.late,
                }
                for ghost in shown.ghosts
            ],
        },
        separators=(",", ":"),
    )
