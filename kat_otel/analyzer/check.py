"""Is an answer grounded? Ids, numbers, ranks and parts of the machine that it names must be cited.

A schema keeps most of it from being written at all; but servers ignore schemas, and sentences are
free. So everything is checked here again, whoever made it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec

from kat_otel.analyzer.answer_schema import Answer
from kat_otel.analyzer.clean import redact
from kat_otel.analyzer.knowledge import UNEXPLAINED, Cause
from kat_otel.analyzer.pack import Pack
from kat_otel.analyzer.quantities import Quantity, numbers_in
from kat_otel.analyzer.reasons import Rejection
from kat_otel.verdict import Component

__all__ = ["Problem", "check", "object_in"]

_MOST: Final = 32_000
"""Characters of an answer that are looked at."""
_TRIES: Final = 20
_DECODER: Final = json.JSONDecoder()
_THOUGHTS: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_LETTERS: Final = re.compile(r"[A-Za-z0-9 .,;:!?'\"()/%+\-–—=°µμ×±≥≤&…_]*")
_UNSAFE: Final = re.compile(r"://|www\.|\brm\s+-|\bsudo\b|\bcurl\b|\bwget\b|<\||```", re.IGNORECASE)

_BLAME: Final = re.compile(
    r"\b(?:culprits?|caus(?:e|es|ed|ing)|blam\w+|fault\w*|slow\w*|late\w*|straggl\w+|responsible"
    r"|holds? (?:\w+ )?up)\b",
    re.IGNORECASE,
)

_PARTS: Final[dict[Component, str]] = {
    "gpu_clock": r"thermal|throttl\w*|overheat\w*|temperature|too hot|cooling|fans?",
    "gpu_power": r"power(?:[ -](?:cap|limit|brake|supply))?|watts?",
    "gpu_compute": r"XID|compute units?|SM fault",
    "hbm": r"HBM|ECC|row remap\w*|(?:GPU|device|video) memory",
    "nvlink": r"NVLink|NVSwitch",
    "pcie": r"PCIe|PCI Express|riser",
    "nic": r"networks?|InfiniBand|NICs?|Ethernet|RDMA|RoCE|TCP|packets?|switch port|cables?",
    "host_cpu": r"CPUs?|hypervisor|CPU steal|processors?|scheduler",
    "host_memory": r"page faults?|swap\w*|garbage[ -]collect\w*|host memory|out of memory|OOM|RAM",
    "storage": r"disks?|storage|NVMe|SSDs?|file ?systems?",
    "software": r"drivers?|firmware|versions?|updates?|regressions?|bugs?|autotun\w*",
}
_NAMED: Final = {c: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for c, words in _PARTS.items()}


class Problem(NamedTuple):
    """What is wrong: the reason that is counted, and the detail that the model is told."""

    reason: Rejection
    detail: str


def object_in(text: str) -> Answer | Problem:
    """Returns the answer in a text: the first JSON object, whatever stands around it."""
    said = _THOUGHTS.sub("", text[:_MOST])
    found = _first_object(said)
    if found is None:
        return Problem("no_json", "no JSON object")
    try:
        return msgspec.convert(found, Answer)
    except msgspec.ValidationError as error:
        return Problem("wrong_form", str(error))


def check(answer: Answer, pack: Pack) -> list[Problem]:
    """Returns all that is wrong with an answer; nothing if it is grounded."""
    problems = [*_names(answer, pack), *_abstention(answer)]
    if problems:
        return problems  # sentences are judged by what is cited: without that, not at all
    cause = pack.cause(answer.root_cause)
    about: list[Cause] = [] if cause is None else [cause]
    cited = list(dict.fromkeys(i for link in answer.causal_chain for i in link.evidence_ids))
    for number, link in enumerate(answer.causal_chain, start=1):
        problems += _sentence(f"claim {number}", link.claim, link.evidence_ids, pack, about)
    problems += _sentence("the summary", answer.summary, cited, pack, about)
    return problems


def _first_object(text: str) -> dict[str, Any] | None:
    at = -1
    for _ in range(_TRIES):
        at = text.find("{", at + 1)
        if at < 0:
            return None
        try:
            found, _ = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        return cast("dict[str, Any]", found) if isinstance(found, dict) else None
    return None


def _names(answer: Answer, pack: Pack) -> Iterator[Problem]:
    cause = pack.cause(answer.root_cause)
    if cause is None:
        yield Problem("unknown_cause", f"root_cause {answer.root_cause!r} is not one of the causes")
    elif answer.component != cause.component:
        yield Problem(
            "component_not_of_cause",
            f"the component of {cause.id} is {cause.component}, not {answer.component!r}",
        )
    speaks = pack.speaks.get(answer.root_cause, ())
    if speaks and not any(i in speaks for link in answer.causal_chain for i in link.evidence_ids):
        yield Problem(
            "cause_not_cited",
            f"no fact that is cited speaks for {answer.root_cause}: {_listed(speaks)} would",
        )
    for rival in answer.hypotheses:
        if pack.cause(rival.root_cause) is None:
            yield Problem("unknown_cause", f"{rival.root_cause!r} is not one of the causes")
    named = [i for link in answer.causal_chain for i in link.evidence_ids]
    named += [i for r in answer.hypotheses for i in (*r.evidence_for, *r.evidence_against)]
    if unknown := [i for i in dict.fromkeys(named) if pack.fact(i) is None]:
        yield Problem("unknown_evidence", f"no fact has the id {_listed(unknown)}")
    if any(not link.evidence_ids for link in answer.causal_chain):
        yield Problem("nothing_cited", "a claim cites no fact")
    if unknown := [name for name in answer.actions if name not in pack.actions]:
        yield Problem("unknown_action", f"no action has the id {_listed(unknown)}")
    if outside := sorted(set(answer.culprit_ranks) - set(pack.ranks)):
        yield Problem("culprit_outside", f"rank {_listed(outside)} is no culprit here")


def _abstention(answer: Answer) -> Iterator[Problem]:
    named = answer.root_cause != UNEXPLAINED
    if answer.abstained == named:
        yield Problem(
            "abstention_unclear",
            f"abstained is {str(answer.abstained).lower()}, but root_cause is "
            f"{answer.root_cause!r}: abstain with {UNEXPLAINED!r} and with nothing else",
        )
    if named and not answer.causal_chain:
        yield Problem("nothing_cited", f"{answer.root_cause} is named without evidence")
    if not named and answer.culprit_ranks:
        yield Problem("abstention_unclear", "nobody is to be blamed where no cause is named")


def _sentence(
    what: str, text: str, cited: Sequence[str], pack: Pack, causes: Iterable[Cause]
) -> Iterator[Problem]:
    """Returns what a sentence says beyond the facts that it cites."""
    said = unicodedata.normalize("NFKC", text)
    plain = said.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    if not _LETTERS.fullmatch(plain) or _UNSAFE.search(plain) or redact(plain) != plain:
        yield Problem("unsafe_text", f"{what} has more than plain words in it")
        return
    facts = " \n ".join(fact.text for fact in pack.facts if fact.id in cited)
    claimed, known = numbers_in(plain), numbers_in(facts)
    if claimed.unread or claimed.quantities - known.quantities:
        wrong = sorted(_number(one) for one in claimed.quantities - known.quantities)
        yield Problem(
            "number_not_cited",
            f"{what} has {_listed(wrong) or claimed.unread!r}, which its facts don't say",
        )
    if outside := sorted(claimed.ranks - known.ranks - set(pack.ranks)):
        yield Problem("culprit_outside", f"{what} tells of rank {_listed(outside)}")
    elif blamed := _blamed(plain, pack):
        yield Problem("culprit_outside", f"{what} blames rank {_listed(blamed)}, no culprit here")
    if names := sorted(claimed.names - known.names - set(cited)):
        yield Problem("name_not_cited", f"{what} has {_listed(names)}, which it doesn't cite")
    known_parts = " ".join((facts, *(f"{c.title}. {c.says}" for c in causes)))
    own = {cause.component for cause in causes}
    for component, words in _NAMED.items():
        found = words.search(plain)
        if found and component not in own and not words.search(known_parts):
            yield Problem("part_not_cited", f"{what} names {found[0]!r}, which no cited fact does")


def _blamed(text: str, pack: Pack) -> list[int]:
    """Returns ranks that a part of a sentence blames without a word of the culprits."""
    for part in re.split(r"[.;:!?](?:\s|$)", text):
        ranks = numbers_in(part).ranks
        if ranks and not ranks & set(pack.ranks) and _BLAME.search(part):
            return sorted(ranks)
    return []


def _number(one: Quantity) -> str:
    return f"{one.value.normalize():f} {one.unit}".strip()


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
