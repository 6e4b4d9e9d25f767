"""What operators say of incidents: that one was right or wrong, that some shall not page now.

Both are kept as JSON lines beside the states of the instances, and travel over the control
channel. ``kat feedback export`` writes the same lines, as labels for the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal

import msgspec

from kat_otel.verdict import Component, Incident, Kind, to_json

__all__ = [
    "MAX_SILENCE_S",
    "Feedback",
    "Label",
    "Said",
    "Silence",
    "Verdict",
    "feedback_of",
    "labels",
    "read_labels",
]

Verdict = Literal["true", "false"]
"""``true``: there was what the incident says; ``false``: there was not."""

MAX_SILENCE_S: Final = 30 * 86_400
"""Longest silence, seconds: what lasts longer is a setting, or a repair that nobody makes."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents that are no pages for a while; all that is said must hold of an incident.

    Attributes:
        id: eight hex digits.
        begin_unix_nano, end_unix_nano: when it was made, and when it ends by itself.
        incident: this one alone. Resolved and seen again, it is another one.
        instance: ``kat.instance.id``.
        kind, component: as the incident has them at that moment.
        ranks: the culprits must be among them, all of them, and be known.
        by, reason: who made it, and why.
    """

    id: str
    begin_unix_nano: int
    end_unix_nano: int
    incident: str | None = None
    instance: str | None = None
    kind: Kind | None = None
    component: Component | None = None
    ranks: tuple[int, ...] = ()
    by: str = ""
    reason: str = ""

    def matches(self, instance: str, incident: Incident) -> bool:
        """Returns whether it speaks of this incident; when it ends is the caller's to see."""
        culprits = incident.culprit.ranks
        return (
            self.incident in {None, incident.id}
            and self.instance in {None, instance}
            and self.kind in {None, incident.kind}
            and self.component in {None, incident.component}
            and (not self.ranks or (bool(culprits) and set(culprits) <= set(self.ranks)))
        )

    @property
    def target(self) -> str:
        """What it silences, in words: ``instance llama, rank 3``."""
        said = [
            f"{name} {value}"
            for name in ("incident", "instance", "kind", "component")
            if (value := getattr(self, name)) is not None
        ]
        if self.ranks:
            said.append(f"rank {', '.join(map(str, self.ranks))}")
        return ", ".join(said)


class Said(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an operator sends of an incident.

    Attributes:
        incident: its id, or the beginning of it.
        verdict: whether it was right.
        note: why, in the operator's words.
        by: who says so.
    """

    incident: _Name
    verdict: Verdict
    note: Annotated[str, msgspec.Meta(max_length=2_000)] = ""
    by: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's verdict on an incident, as it is kept.

    Attributes:
        incident_id: whose.
        instance: ``kat.instance.id``.
        verdict, note, by: as :class:`Said` has them.
        at_unix_nano: when it was said.
        kind, component: of the incident at that moment.
        report: the incident's report object as JSON. It passes through unread: what another
            version has written is exported as it is.
    """

    schema: Literal["kat.feedback/v1"] = "kat.feedback/v1"
    incident_id: str
    instance: str
    verdict: Verdict
    note: str
    by: str
    at_unix_nano: int
    kind: str
    component: str
    report: msgspec.Raw


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``kat feedback export``, its incident read: a label for the benchmark."""

    incident_id: str
    instance: str
    verdict: Verdict
    note: str
    by: str
    at_unix_nano: int
    report: Incident


def feedback_of(said: Said, instance: str, incident: Incident, at_ns: int) -> Feedback:
    """Returns what is kept of a verdict, with the incident as it is now."""
    return Feedback(
        incident_id=incident.id,
        instance=instance,
        verdict=said.verdict,
        note=said.note,
        by=said.by,
        at_unix_nano=at_ns,
        kind=incident.kind,
        component=incident.component,
        report=msgspec.Raw(to_json(incident)),
    )


def labels(told: Iterable[Feedback]) -> bytes:
    """Returns verdicts as JSON lines."""
    return b"".join(msgspec.json.encode(one) + b"\n" for one in told)


def read_labels(lines: Iterable[bytes | str]) -> Iterator[Label]:
    """Yields the labels of an exported file, line by line.

    Raises:
        msgspec.ValidationError: a line is no label; the message names the field.
        msgspec.DecodeError: a line is not JSON.
    """
    for line in lines:
        if line.strip():
            yield msgspec.json.decode(line, type=Label)
