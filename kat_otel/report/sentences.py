"""The plain words of a report: ranks, durations, and the one sentence that names the culprit.

Every output says the same thing in the same words, so they are made here once. Names of
kernels and files come from traces and are untrusted: :func:`printable` takes away whatever
could move a terminal's cursor or turn the reading direction.
"""

from __future__ import annotations

from collections.abc import Sequence

from kat_otel.verdict import Culprit, Incident, Report, Source
from kat_otel.wording import ranks_text

__all__ = [
    "by_impact",
    "clock_text",
    "culprit_sentence",
    "duration_text",
    "first_line",
    "percent_text",
    "places_text",
    "printable",
    "probability_text",
    "verdict_tail",
]

_MAX_PLACES = 8


def printable(text: str) -> str:
    r"""Returns ``text`` on one line, with control, format and lone surrogate characters escaped.

    ``"\x1b[2J"`` becomes ``"\\x1b[2J"``: seen, but without effect.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def by_impact(report: Report) -> list[Incident]:
    """Returns the incidents, the one that costs most first."""
    return sorted(report.incidents, key=lambda incident: -incident.impact_ns)


def duration_text(nanoseconds: float) -> str:
    """Returns a duration in two to three digits with its unit: ``7.6 ms``, ``952 µs``."""
    value = float(nanoseconds)
    for limit, unit in ((1e3, "ns"), (1e6, "µs"), (1e9, "ms")):
        if abs(value) < limit * 0.9995:
            return f"{_digits(value / (limit / 1e3))} {unit}"
    return f"{_digits(value / 1e9)} s"


def _digits(value: float) -> str:
    if abs(value) >= 99.95 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 0.95 else f"{value:.2f}"


def percent_text(part: float, whole: float) -> str:
    """Returns ``part`` of ``whole`` as a percentage, or ``""`` if there is no whole."""
    if whole <= 0:
        return ""
    share = 100.0 * part / whole
    return f"{share:.1f} %" if share < 9.95 else f"{share:.0f} %"


def probability_text(probability: float) -> str:
    """Returns a small probability as odds that a person grasps: ``1 in 20,000``."""
    if probability <= 0:
        return "below 1 in 10^15"
    if probability >= 0.5:
        return f"{probability:.2f}"
    odds = 1.0 / probability
    if odds < 1e6:
        return f"1 in {float(f'{odds:.2g}'):,.0f}" if odds >= 10 else f"1 in {odds:.1f}"
    return f"1 in 10^{len(str(int(odds))) - 1}"


def culprit_sentence(incident: Incident, ranks: Sequence[int] = ()) -> str:
    """Returns who costs whom how much, without a full stop.

    Args:
        incident: the incident.
        ranks: all ranks that were read, to say "all 8 ranks" instead of listing them.
    """
    culprit = incident.culprit
    who = ranks_text(culprit.ranks)
    plural = len(set(culprit.ranks)) != 1
    if len(culprit.ranks) > 1 and set(culprit.ranks) == set(ranks):
        who = f"all {len(set(ranks))} ranks"
    elif not culprit.ranks:
        places = [*culprit.hosts, *culprit.devices, incident.link, incident.group]
        who = printable(next((place for place in places if place), "the instance"))
        plural = False
    cost = duration_text(incident.impact_ns)
    if not culprit.sure:
        much = f" by {cost} per step" if incident.impact_ns else ""  # none: the step is no longer
        return f"{who} {'differ' if plural else 'differs'}{much}, side unknown"
    if incident.kind == "regression":
        verb = "are" if plural else "is"
        return f"{who} {verb} {cost} per step slower than before"
    if incident.victims:
        verb = "make" if plural else "makes"
        return f"{who} {verb} {ranks_text(incident.victims)} wait {cost} per step"
    return f"{who} {'lose' if plural else 'loses'} {cost} per step"


def places_text(culprit: Culprit) -> str:
    """Returns devices and hosts of the culprit, ``device 4, device 5 on node-a``, or ``""``."""
    devices = [f"device {d}" if d.isdigit() else d for d in culprit.devices if d]
    hosts = [h for h in culprit.hosts if h]
    said = ", ".join(devices[:_MAX_PLACES]) + (", …" if len(devices) > _MAX_PLACES else "")
    where = ", ".join(hosts[:_MAX_PLACES]) + (", …" if len(hosts) > _MAX_PLACES else "")
    return printable(" on ".join(part for part in (said, where) if part))


def clock_text(source: Source) -> str:
    """Returns how the clocks of the ranks relate, in a few words."""
    if len(source.ranks) < 2:
        return "one rank, nothing to align"
    said = {
        "aligned": "aligned",
        "corrected": "corrected by the ends of collectives",
        "unaligned": "not aligned; ranks are compared by durations only",
    }[source.clock.state]
    offset = source.clock.max_offset_ns
    return f"{said}, offset at most {duration_text(offset)}" if offset else said


def verdict_tail(incident: Incident) -> str:
    """Returns kind and component with its confidence: ``late_launch, host_cpu (0.6)``."""
    return f"{incident.kind}, {incident.component} ({incident.component_confidence:.2g})"


def first_line(report: Report) -> str:
    """Returns the sentence that every output starts with: the culprit, or why there is none."""
    if report.abstained is not None:
        reason = printable(report.abstained.reason).replace("_", " ")
        detail = printable(report.abstained.detail)
        return f"No verdict: {reason}" + (f" — {detail}" if detail else "")
    incidents = by_impact(report)
    if incidents:
        worst = incidents[0]
        certainty = "sure" if worst.culprit.sure else "not sure"
        said = culprit_sentence(worst, report.source.ranks)
        return f"{said}: {verdict_tail(worst)} — {certainty}"
    steps = len(report.steps)
    judged = f"{ranks_text(report.source.ranks)}, {steps} step{'' if steps == 1 else 's'}"
    coverage = report.coverage
    kernels = f"{coverage.aligned:,} of {coverage.kernels:,} kernels compared with other ranks"
    if len(report.source.ranks) < 2:
        kernels = f"{coverage.kernels:,} kernels, no other rank to compare with"
    return f"No incident: {judged}, {kernels}"
