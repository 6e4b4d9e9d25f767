"""The sentences in which a fact may leave, so that only words and numbers of ours do.

A fact's text holds names that the workload chose: whoever names a kernel can write whatever they
like into it. So a text leaves only if the whole of it is one of the sentences below, in which the
names are replaced. The words of a name thus can't become words of the fact. Of a fact with any
other text its numbers leave, in a sentence made here.

The sentences are those of ``ttad/evidence.py``, ``ttad/digest_incidents.py`` and
``ttad/hardware_evidence.py``; tests hold the files together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, get_args

from kat_otel.analyzer.aliases import Aliases, Sort
from kat_otel.analyzer.quantities import amount_text
from kat_otel.hardware.log_patterns import XID_WORDS
from kat_otel.hardware.readings import SIGNALS, SignalSpec
from kat_otel.verdict import NOTHING_UNUSUAL, Component, Evidence

__all__ = ["TRACE_SIGNALS", "said"]

_NUMBER: Final = r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
_RANGE: Final = r"\d{1,6}(?:-\d{1,6})?"
_CLOCK: Final = r"\d\d:\d\d:\d\d"
_AMOUNT: Final = (
    rf"(?:yes|no|{_NUMBER}(?: (?:MHz|W|°C|lanes|MiB|CPUs|% of the time))?)"  # as _amount() there
)
_HOLES: Final[Mapping[str, str]] = {
    "n": _NUMBER,
    "time": rf"{_NUMBER} (?:ns|µs|ms|s)",
    "list": r"\d+(?:, \d+)*(?:, …)?",
    "ranks": rf"(?:no rank|ranks? {_RANGE}(?:, {_RANGE})*(?: and (?:{_RANGE}|[\d,]+ more))?)",
}
_NAMES: Final[Mapping[str, Sort]] = {"kernel": "kernel", "group": "group"}
"""Holes for names, which may hold anything: the sentence goes on behind its last fitting place."""

_SENTENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "arrival_excess": (
        (
            "{ranks} arrives last at {n} of {n} collectives (no. {list}) and fell behind the peers "
            "by up to {time} from one collective to the next"
        ),
        (
            "{ranks} arrive last at {n} of {n} collectives (no. {list}) and fell behind the peers "
            "by up to {time} from one collective to the next"
        ),
        "the longest wait, {time}, is at collective no. {n} of {n}",
    ),
    "wait": (
        "the others wait {time} each for it in this step",
        "the others wait {time} for {ranks} in this step",
    ),
    "begin": ("{ranks} begins the step {time} after the others",),
    "launch_lead": ("{n} % of it was launched late: there the GPU of {ranks} had nothing queued",),
    "launch_gap": (
        "the longest pause between two launches of {ranks} is {time}, after {n} collectives",
    ),
    "walk_kernels": (
        (
            "walked back from its late arrivals, {n} % of the lateness of {ranks} ({time}) lies in "
            "kernels that run longer than on the peers"
        ),
    ),
    "walk_copies": (
        (
            "walked back from its late arrivals, {n} % of the lateness of {ranks} ({time}) lies in "
            "copies that run longer than on the peers"
        ),
    ),
    "walk_launch": (
        (
            "walked back from its late arrivals, {n} % of the lateness of {ranks} ({time}) lies in "
            "launches that come late from the host thread"
        ),
    ),
    "walk_unexplained": (
        (
            "walked back from its late arrivals, {n} % of the lateness of {ranks} ({time}) lies in "
            "gaps on the GPU that no record explains"
        ),
    ),
    "structure": ("{ranks} ran {n} kernels or copies that no peer ran",),
    "kernel_time": (
        "kernel time of {ranks} is normal ({n} %)",
        "kernel time of {ranks} is {n} % against its peers",
    ),
    "kernel_duration": ("{kernel} takes {time} on rank {n}, expected {time}",),
    "kernel_class_time": ("{kernel} takes {time} in this step on rank {n}, expected {time}",),
    "copy_time": ("copies of {ranks} take {time} more than those of its peers",),
    "peers_missing": (
        "no peer was recorded: the comparison is with the rank's own repeated layers",
    ),
    "side_unknown": ("the two sides differ and no history says which of them is usual",),
    "slow_transfer": (
        (
            "{n} transfers of collectives of {ranks} take {n} times their usual time, alike on all "
            "ranks"
        ),
        (
            "transfers of the collectives of {ranks} take {time} in all, usually {time}, alike on "
            "all ranks"
        ),
    ),
    "regression": (
        "{n} kernels of {ranks} take {n} times their usual time, alike on all ranks",
        "kernels of {ranks} take {time} in all, usually {time}, alike on all ranks",
    ),
    "imbalance": (
        (
            "{group} ({ranks}) takes {n} times as long as the other stages for the same "
            "operations, alike on its ranks: its share of the model is too large, no rank of it is "
            "slower than its peers"
        ),
    ),
    "usual_duration": ("{kernel}: expected {time}",),
}
_HARDWARE: Final[dict[str, SignalSpec]] = {**SIGNALS}
TRACE_SIGNALS: Final = frozenset(_SENTENCES)
"""Signals of traces; those of hardware are in ``hardware/readings.py``."""

_LONGEST: Final = 2_000
"""Characters; kernel names are long, but no sentence is longer."""
_PLACE: Final = re.compile(r"\{(\w+)\}")
# Names of places stand between brackets and colons here: one that has these in it fits nothing.
_WHERE: Final = (
    r"(?:host (?P<host1>[^():;]+)"
    r"|(?P<device>[^():;]+) \(rank \d+(?:, (?P<host2>[^():;]+))?\)"
    r"|rank \d+(?:, (?P<host3>[^():;]+))?)"
)
_WHEN: Final = rf"(?:at {_CLOCK} UTC|{_CLOCK} to {_CLOCK} UTC)"
_DETAILS: Final = "corrected|uncorrected|ib|socket|nvlink|pcie|cuda|other"
_GROUPS: Final[Mapping[str, Sort]] = {
    "host1": "host",
    "host2": "host",
    "host3": "host",
    "device": "device",
    "interface": "interface",
    "kernel": "kernel",
    "group": "group",
}


def said(fact: Evidence, aliases: Aliases, *, times: bool = True) -> str | None:
    """Returns the sentence in which a fact may leave, or None if it tells nothing that is known.

    Args:
        fact: of an incident.
        aliases: take the names.
        times: whether the time of day may stay.
    """
    for form in _forms(fact.signal) if len(fact.text) <= _LONGEST else ():
        found = form.fullmatch(fact.text)
        if found is not None:
            return _aliased(found, aliases, times=times)
    if fact.signal in TRACE_SIGNALS or fact.signal in _HARDWARE:
        return _numbers_alone(fact)
    return None


def _aliased(found: re.Match[str], aliases: Aliases, *, times: bool) -> str:
    text = found.string
    names = [name for name in _GROUPS if _holds(found, name)]
    out, at = "", 0
    for name in sorted(names, key=found.start):
        (begin, end), sort = found.span(name), _GROUPS[name]
        out += text[at:begin] + aliases.of(sort, text[begin:end])
        at = end
    out += text[at:]
    return out if times else re.sub(rf" (?:\({_WHEN}\)|{_WHEN})$", "", out)


def _holds(found: re.Match[str], name: str) -> bool:
    return name in found.re.groupindex and found[name] is not None


def _numbers_alone(fact: Evidence) -> str | None:
    spec = _HARDWARE.get(fact.signal)
    words = spec.words if spec else fact.signal.replace("_", " ")
    if fact.value is None and fact.expected is None:
        return None
    said = words if fact.value is None else f"{words}: {amount_text(fact.value, fact.unit)}"
    expected = fact.expected
    return said if expected is None else f"{said}, expected {amount_text(expected, fact.unit)}"


@cache
def _forms(signal: str) -> tuple[re.Pattern[str], ...]:
    texts = [_pattern(sentence) for sentence in _SENTENCES.get(signal, ())]
    if signal in _HARDWARE:
        texts += _of_hardware(signal, _HARDWARE[signal])
    return tuple(re.compile(text, re.DOTALL | re.ASCII) for text in texts)


def _pattern(sentence: str) -> str:
    """Returns the regular expression of a sentence with holes."""
    out, at = "", 0
    for hole in _PLACE.finditer(sentence):
        name = hole[1]
        inside = f"(?P<{name}>.+)" if name in _NAMES else f"(?:{_HOLES[name]})"
        out += re.escape(sentence[at : hole.start()]) + inside
        at = hole.end()
    return out + re.escape(sentence[at:])


def _of_hardware(signal: str, spec: SignalSpec) -> Iterable[str]:
    words = re.escape(spec.words)
    if spec.form == "event":
        meanings = "|".join(re.escape(meaning) for meaning in sorted(set(XID_WORDS.values())))
        event = rf"Xid \d{{1,8}}(?: \((?:{meanings})\))?" if signal == "xid" else words
        yield rf"{_WHERE}: {event}(?: \((?:{_DETAILS})\))? {_WHEN}"
    else:
        others = rf"(?:; (?:the peer|the \d+ peers' median) {_AMOUNT})?"
        before = rf"(?:; before the onset {_AMOUNT})?"
        which = r"(?: on (?P<interface>[^():;]+))?"
        yield rf"{_WHERE}: {words}{which} {_AMOUNT}{others}{before} \({_WHEN}\)"
    any_words = "|".join(re.escape(spec.words) for spec in SIGNALS.values())
    components = "|".join(get_args(Component))
    yield (
        rf"{_WHERE}: {NOTHING_UNUSUAL} (?:{components}): (?:{any_words})(?:, (?:{any_words}))* "
        rf"\({_WHEN}\)"
    )
