"""The same facts in other words, so that a model learns what they say and not how.

Wording 0 is the product's own. Of the others, some are never trained on: what a model makes of them
tells whether it has learnt sentences by heart. Ids, numbers, units and aliases stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from kat_otel.analyzer.pack import Pack

__all__ = ["OWN", "TRAINED", "UNSEEN", "reworded", "user_text"]

OWN: Final = 0
TRAINED: Final = (0, 1, 2, 3)
UNSEEN: Final = (4, 5)

_TIME: Final = r"[\d.,]+ (?:ns|µs|ms|s)"
_AMOUNT: Final = r"[^;()]+"

# Each sentence with its other wordings, in the order of their numbers.
_SENTENCES: Final[tuple[tuple[str, tuple[str, str, str, str, str]], ...]] = (
    (
        rf"(?P<r>ranks? .+?) arrives? last at (?P<n>\d+) of (?P<m>\d+) collectives \((?P<l>no\. .+)\)"
        rf" and fell behind the peers by up to (?P<t>{_TIME}) from one collective to the next",
        (
            "in {n} of {m} collectives ({l}) {r} came after everybody else, up to {t} later each time",
            "{r}: last one to reach {n} out of {m} collectives ({l}); gap to the peers grows by {t} at most",
            "collectives joined last by {r}: {n} of {m} ({l}); most time lost between two of them: {t}",
            "the peers were kept by {r} at {n} of {m} meeting points ({l}), at worst {t} more than at the one before",
            "{t} is the most that {r} lost on the others between two collectives; it closed {n} of {m} ({l})",
        ),
    ),
    (
        rf"the others wait (?P<t>{_TIME})(?: each)? for (?P<r>it|ranks? .+?) in this step",
        (
            "waiting time of the other ranks in this step: {t}",
            "everybody else loses {t} in this step",
            "each of the other ranks stands still for {t}",
            "{t} of this step the remaining ranks do nothing but wait",
            "this step costs the rest of the group {t} of idling",
        ),
    ),
    (
        rf"walked back from its late arrivals, (?P<n>[\d.]+) % of the lateness of (?P<r>ranks? .+?)"
        rf" \((?P<t>{_TIME})\) lies in kernels that run longer than on the peers",
        (
            "{n} % of what makes {r} late ({t}) are kernels that take longer there than elsewhere",
            "tracing the delay of {r} to its root: {t}, {n} % of it, are kernels longer than the peers'",
            "longer kernels explain {n} % of the {t} by which {r} is late",
            "of the delay of {r}, {t} ({n} %) were spent in GPU work that the peers finish sooner",
            "{r}: {t} late, and {n} % of that comes from kernels whose run time exceeds the others'",
        ),
    ),
    (
        rf"walked back from its late arrivals, (?P<n>[\d.]+) % of the lateness of (?P<r>ranks? .+?)"
        rf" \((?P<t>{_TIME})\) lies in launches that come late from the host thread",
        (
            "{n} % of what makes {r} late ({t}) is work that its host thread launched late",
            "tracing the delay of {r} to its root: {t}, {n} % of it, the host was late to launch",
            "late launches of the host explain {n} % of the {t} by which {r} is late",
            "of the delay of {r}, {t} ({n} %) passed before the host handed the work to the GPU",
            "{r}: {t} late, and {n} % of that comes from a host thread behind with its launches",
        ),
    ),
    (
        rf"walked back from its late arrivals, (?P<n>[\d.]+) % of the lateness of (?P<r>ranks? .+?)"
        rf" \((?P<t>{_TIME})\) lies in copies that run longer than on the peers",
        (
            "{n} % of what makes {r} late ({t}) are copies that take longer there than elsewhere",
            "tracing the delay of {r} to its root: {t}, {n} % of it, are copies longer than the peers'",
            "longer copies explain {n} % of the {t} by which {r} is late",
            "of the delay of {r}, {t} ({n} %) were spent in transfers that the peers finish sooner",
            "{r}: {t} late, and {n} % of that comes from copies whose run time exceeds the others'",
        ),
    ),
    (
        r"kernel time of (?P<r>ranks? .+?) is normal \((?P<n>.+) %\)",
        (
            "kernels of {r} take as long as usual ({n} %)",
            "{r}: nothing odd in the time of kernels ({n} %)",
            "against its peers the kernels of {r} differ by no more than {n} %",
            "GPU work itself is not longer on {r} ({n} %)",
            "{n} % is all that the run time of kernels on {r} deviates: usual",
        ),
    ),
    (
        r"kernel time of (?P<r>ranks? .+?) is (?P<n>.+) % against its peers",
        (
            "kernels of {r} take {n} % of time compared with the other ranks",
            "{r}: total run time of kernels {n} % off the peers'",
            "against its peers the kernels of {r} differ by {n} %",
            "GPU work on {r} deviates by {n} % from the same work elsewhere",
            "{n} % is what the kernels of {r} need beyond those of the group",
        ),
    ),
    (
        rf"(?P<k>K\d+) takes (?P<t>{_TIME}) on rank (?P<n>\d+), expected (?P<e>{_TIME})",
        (
            "on rank {n}, {k} ran {t} where {e} were expected",
            "{k} (rank {n}): {t} instead of {e}",
            "{t} for {k} on rank {n}; usual would be {e}",
            "rank {n} needs {t} for {k}, {e} would be right",
            "run time of {k}, rank {n}: {t}, reference {e}",
        ),
    ),
    (
        rf"(?P<k>K\d+) on rank (?P<n>\d+) took (?P<t>{_TIME}), expected (?P<e>{_TIME})",
        (
            "span of {k} on rank {n}: {t} long, {e} expected",
            "{k}, rank {n}: lasted {t}, should last {e}",
            "{t} passed in {k} on rank {n} ({e} is usual)",
            "one {k} of rank {n} went on for {t} rather than {e}",
            "recorded for {k} on rank {n}: {t} against {e}",
        ),
    ),
    (
        rf"(?P<w>.+?): (?P<s>[^;:]+?) (?P<v>[\d.,]+{_AMOUNT.replace('+', '*')}?);"
        rf"(?: the (?P<c>peer|\d+ peers' median) (?P<p>{_AMOUNT});?)?"
        rf"(?: before the onset (?P<b>{_AMOUNT}))? \((?P<at>.+ UTC)\)",
        (
            "{s} at {w} is {v}{p: (elsewhere %)}{b:, was %}, from {at}",
            "measured at {w}, {at}: {s} = {v}{p: against % of the others}{b:; earlier %}",
            "{w} has {s} {v}{b: where it had %}{p:; its peers have %} [{at}]",
            "from {at} the {s} of {w} read {v}{p:, that of comparable parts %}{b:, and % in healthy steps}",
            "{w} / {s}: now {v}{b: / formerly %}{p: / others %} / {at}",
        ),
    ),
    (
        r"(?P<w>.+?): nothing unusual that would speak for (?P<c>\w+): (?P<s>.+) \((?P<at>.+ UTC)\)",
        (
            "{s} of {w} are as always, so they do not point to {c} ({at})",
            "no sign of {c} at {w}: {s} measured and normal, {at}",
            "{w}: {c} is not supported, since {s} show nothing [{at}]",
            "looked for {c} at {w} in {s} and found nothing, {at}",
            "{s} / {w} / {at}: within the usual, which speaks against {c}",
        ),
    ),
    (
        r"(?P<w>.+?): (?P<s>[^:;]+) (?P<at>at \d\d:\d\d:\d\d UTC)",
        (
            "{s} was logged for {w}, {at}",
            "{w} reported {s} [{at}]",
            "a line of the log {at} says {s}; it concerns {w}",
            "{at} {w} wrote of {s}",
            "log / {w} / {at}: {s}",
        ),
    ),
    (
        r"(?P<k>slow rank|slow kernel|late launch|stall|slow copy|slow transfer) of (?P<r>.+); (?P<v>.+) wait",
        (
            "{v} wait for {r}: {k}",
            "{k}, found at {r}; {v} have to wait",
            "what deviates is a {k} of {r}, and {v} stand still for it",
            "verdict on the step: {k}. Where: {r}. Kept waiting: {v}",
            "{r} shows a {k} that {v} pay for",
        ),
    ),
    (
        r"(?P<n>\d+) transfers of collectives of (?P<r>ranks? .+?) take (?P<x>[\d.]+) times their usual"
        r" time, alike on all ranks",
        (
            "collectives of {r}: {n} transfers are {x} times as long as usual, for every rank alike",
            "every rank of {r} sees {n} transfers stretched {x} times",
            "{x} times the usual time goes into {n} transfers of {r}, and no rank differs",
            "moving data takes {x} times as long in {n} collectives of {r}, with no rank apart",
            "{n} collectives of {r} transfer at 1/{x} of their usual pace on all members",
        ),
    ),
    (
        rf"replayed without it, the step would be (?P<t>{_TIME}) shorter; it takes (?P<s>{_TIME})",
        (
            "cost: {t} of a step of {s}",
            "a step takes {s}, and would take {t} less without this",
            "without it {t} of {s} would be saved",
            "{t} could be gained in each step ({s} now)",
            "the step, {s} long, pays {t} for it",
        ),
    ),
)
_COMPILED: Final = tuple((re.compile(pattern), other) for pattern, other in _SENTENCES)
_HOLE: Final = re.compile(r"\{(\w+)(?::([^{}]*))?\}")


def reworded(text: str, wording: int) -> str:
    """Returns a fact in another wording; as it is if the wording is the product's own.

    Raises:
        ValueError: there is no such wording.
    """
    if not 0 <= wording <= len(_COMPILED[0][1]):
        raise ValueError(f"wording {wording}: there are 0 to {len(_COMPILED[0][1])}")
    for pattern, others in _COMPILED if wording else ():
        found = pattern.fullmatch(text)
        if found is not None:
            return _filled(others[wording - 1], found.groupdict())
    return text


def user_text(pack: Pack, wording: int, rng: np.random.Generator | None = None) -> str:
    """Returns a pack as a model reads it, in a wording.

    Args:
        pack: of an incident.
        wording: its number.
        rng: puts the causes in random order: the pack has the detector's favourite first, and a
            model that learns "the first" has learnt nothing. None keeps the order.
    """
    told = {
        f"{fact.id}: {fact.text}": f"{fact.id}: {reworded(fact.text, wording)}"
        for fact in pack.facts
    }
    causes = [f"{cause.id} ({cause.component}): {cause.title}" for cause in pack.causes]
    order = range(len(causes)) if rng is None else rng.permutation(len(causes))
    moved = dict(zip(causes, (causes[at] for at in order), strict=True))
    lines = pack.text.split("\n")
    return "\n".join(told.get(line) or moved.get(line) or line for line in lines)


def _filled(sentence: str, parts: dict[str, str | None]) -> str:
    def fill(hole: re.Match[str]) -> str:
        value = parts.get(hole[1])
        if hole[2] is None:
            return value or ""
        return hole[2].replace("%", value, 1) if value else ""

    return _HOLE.sub(fill, sentence)
