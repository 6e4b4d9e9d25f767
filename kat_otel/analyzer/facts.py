"""The facts of an incident, numbered, in sentences that may leave, the weightiest first.

``E`` and ``H`` are the incident's own evidence under its own ids, ``C`` what the detector says of
the incident as a whole, ``S`` spans that it cites.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from kat_otel.analyzer.aliases import Aliases
from kat_otel.analyzer.context import Context
from kat_otel.analyzer.forms import said
from kat_otel.analyzer.quantities import time_text
from kat_otel.analyzer.send import Part
from kat_otel.hardware.readings import SIGNALS
from kat_otel.kernels import family
from kat_otel.verdict import NOTHING_UNUSUAL, Evidence, Incident
from kat_otel.wording import ranks_text

__all__ = ["EVIDENT", "Fact", "facts_of"]

_OWN_ID: Final = re.compile(r"[EH][1-9]\d{0,2}")
_SPANS: Final = 6
_COMPONENTS: Final = 5
_EVENTS: Final = frozenset(name for name, spec in SIGNALS.items() if spec.form == "event")
_LAST: Final = ("usual_duration", "peers_missing", "side_unknown")

_WHOLE, _FACT, _HARDWARE, _SPAN, _QUIET, _AROUND, _MINOR = range(7)
"""How weighty a fact is, the first the most: what does not fit is left out from the last."""
EVIDENT: Final = _HARDWARE
"""Facts up to this weight are what an incident is explained by; the others tell what is around."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as it is sent.

    Attributes:
        id: what the model cites.
        text: with aliases for names.
        source: id of the incident's own evidence; ``""`` if it is none of that.
        weight: place in the order in which facts are kept; 0 is kept first.
    """

    id: str
    text: str
    source: str = ""
    weight: int = _FACT


def facts_of(
    incident: Incident, context: Context, send: frozenset[Part], aliases: Aliases
) -> tuple[list[Fact], int]:
    """Returns the facts, and how much evidence there is of which nothing may be said.

    Evidence is left out that the policy keeps here, or that is of an unknown kind.
    """
    facts: list[Fact] = []
    untold = 0
    for number, fact in enumerate(incident.evidence, start=1):
        text = said(fact, aliases, times="times" in send) if _may_leave(fact, send) else None
        if text is None:
            untold += 1
            continue
        known = {told.id for told in facts}
        own = _OWN_ID.fullmatch(fact.id) and fact.id not in known
        facts.append(
            Fact(
                id=fact.id if own else f"F{number}",
                text=text,
                source=fact.id,
                weight=_weight(fact),
            )
        )
    whole = _numbered("C", _of_the_whole(incident, context), _WHOLE)
    around = _numbered("C", _around(incident, context, send, aliases), _AROUND, len(whole))
    spans = _numbered("S", _spans(incident, aliases), _SPAN)
    return [*whole, *facts, *spans, *around], untold


def _may_leave(fact: Evidence, send: frozenset[Part]) -> bool:
    if fact.signal in _EVENTS:
        return "logs" in send
    return fact.signal not in SIGNALS or "hardware" in send


def _weight(fact: Evidence) -> int:
    if fact.signal in _LAST:
        return _MINOR
    if f": {NOTHING_UNUSUAL} " in fact.text:
        return _QUIET
    return _HARDWARE if fact.signal in SIGNALS else _FACT


def _numbered(letter: str, texts: Iterator[str], weight: int, after: int = 0) -> list[Fact]:
    return [
        Fact(id=f"{letter}{number}", text=text, weight=weight)
        for number, text in enumerate(texts, start=after + 1)
    ]


def _of_the_whole(incident: Incident, context: Context) -> Iterator[str]:
    culprit = ranks_text(incident.culprit.ranks) if incident.culprit.ranks else "no single rank"
    waits = f"; {ranks_text(incident.victims)} wait" if incident.victims else ""
    yield f"{incident.kind.replace('_', ' ')} of {culprit}{waits}"
    takes = f"; it takes {time_text(context.step_ns)}" if context.step_ns else ""
    yield f"replayed without it, the step would be {time_text(incident.impact_ns)} shorter{takes}"
    others = [
        f"{candidate.component} {candidate.probability:.2g}"
        for candidate in incident.component_candidates[:_COMPONENTS]
    ] or [f"{incident.component} {incident.component_confidence:.2g}"]
    yield f"the detector's probabilities of components: {', '.join(others)}"


def _around(
    incident: Incident, context: Context, send: frozenset[Part], aliases: Aliases
) -> Iterator[str]:
    times = incident.occurrences
    yield (
        f"seen in {times:,} step{'' if times == 1 else 's'}; it deviates by "
        f"{incident.score:,.1f} standard deviations; status {incident.status}"
    )
    if "topology" in send and context.ranks:
        of = f" of {context.world_size}" if context.world_size else ""
        ways = "".join(f"; {way} parallel {n}" for way, n in context.parallelism.items())
        hosts = len(incident.culprit.hosts)
        on = f"; the culprit is on {hosts} host{'' if hosts == 1 else 's'}" if hosts else ""
        yield f"{context.ranks} ranks{of} were read{ways}{on}"
    if "engine" in send and (context.engine or context.model):
        model = f"a model {aliases.of('model', context.model)}" if context.model else "a model"
        yield f"{context.engine or 'an engine'} serves {model}"
    if "coverage" in send and context.unmatched:
        yield (
            f"not judged: {context.unmatched:,} of {context.kernels:,} kernels, which have no "
            "counterpart"
        )
    if "coverage" in send and context.clock == "unaligned":
        yield "not judged: arrival times, as the clocks of the ranks are not aligned"


def _spans(incident: Incident, aliases: Aliases) -> Iterator[str]:
    told = 0
    for span in incident.spans:
        if span.expected_ns is None or told == _SPANS:
            continue
        told += 1
        # by family: evidence names kernels so, and the same kernel is to have one alias
        kernel = aliases.of("kernel", family(span.name))
        yield (
            f"{kernel} on rank {span.rank} took {time_text(span.duration_ns)}, expected "
            f"{time_text(span.expected_ns)}"
        )
