"""The evidence pack: all that a model is told of an incident, small, closed and always the same.

Numbered facts, the causes that come in question, and what can be done. Nothing in it is a text that
somebody else wrote, see ``forms.py``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kat_otel.analyzer.aliases import Aliases
from kat_otel.analyzer.context import Context
from kat_otel.analyzer.facts import EVIDENT, Fact, facts_of
from kat_otel.analyzer.knowledge import UNEXPLAINED, Cause, Knowledge, embedded
from kat_otel.analyzer.send import EVERYTHING, Part
from kat_otel.analyzer.weigh import components, possible, undecided
from kat_otel.verdict import Incident

__all__ = ["MAX_TOKENS", "Pack", "make_pack", "token_count"]

MAX_TOKENS: Final = 2_000
"""Tokens of a pack at most, counted by :func:`token_count`."""
_MOST_CAUSES: Final = 16
_MOST_RANKS: Final = 64
_DIGITS: Final = re.compile(r"[+-]?\d[\d.,]*( ?[nµm]?s\b)?")
_PIECE: Final = re.compile(r"[A-Za-z]+|\s+|.", re.DOTALL)


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """What a model may read, and what it may answer with.

    Attributes:
        facts: by id, in the order in which they are sent.
        left_out: facts for which there was no room, or which may not leave.
        causes: that come in question, ``unexplained`` the last.
        speaks: ids of the facts that speak for each of them, by the knowledge: those that it needs,
            or without such those that support it.
        ranks: culprits that may be named.
        actions: id and what the action is in a few words, without the culprit's names.
        why_not: why there is nothing to ask a model; empty if there is.
        names: of the aliases.
    """

    facts: tuple[Fact, ...]
    left_out: int
    causes: tuple[Cause, ...]
    speaks: Mapping[str, tuple[str, ...]]
    ranks: tuple[int, ...]
    actions: Mapping[str, str]
    why_not: str
    names: Aliases

    @property
    def text(self) -> str:
        """The pack as the model reads it."""
        lines = ["Facts:", *(f"{fact.id}: {fact.text}" for fact in self.facts)]
        if self.left_out:
            lines.append(f"({self.left_out} more facts of less weight are left out)")
        lines += ["", "Causes that come in question:"]
        lines += [f"{c.id} ({c.component}): {c.title}" for c in self.causes]
        lines += ["", "Actions:", *(f"{name}: {text}" for name, text in self.actions.items())]
        return "\n".join(lines)

    @property
    def tokens(self) -> int:
        """How many tokens the pack has at most."""
        return token_count(self.text)

    @property
    def fingerprint(self) -> str:
        """The same for packs that read the same: what an answer may be remembered by."""
        said = f"{self.text}\n{','.join(map(str, self.ranks))}"
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    @property
    def gist(self) -> str:
        """The same as long as the same is said with other numbers: what asking anew is worth.

        A long incident is measured anew in each step; its evidence changes when a fact comes or
        goes, or says something else. What is around it (how often it was seen, which spans show it,
        what is as usual) comes and goes with the steps, and is none.
        """
        told = [fact.text for fact in self.facts if fact.weight <= EVIDENT]
        said = [*(_DIGITS.sub("#", text) for text in told), *(cause.id for cause in self.causes)]
        return hashlib.sha256("\n".join([*said, str(self.ranks)]).encode()).hexdigest()[:32]

    def fact(self, name: str) -> Fact | None:
        """Returns the fact of an id."""
        return next((fact for fact in self.facts if fact.id == name), None)

    def cause(self, name: str) -> Cause | None:
        """Returns the cause of an id, if it comes in question."""
        return next((cause for cause in self.causes if cause.id == name), None)

    def action(self, name: str) -> str:
        """Returns an action in full, as the knowledge has it."""
        return self._in_full()[name]

    def _in_full(self) -> dict[str, str]:
        return dict(zip(self.actions, _actions(self.causes), strict=True))


def make_pack(
    incident: Incident,
    context: Context | None = None,
    *,
    knowledge: Knowledge | None = None,
    send: frozenset[Part] = EVERYTHING,
    max_tokens: int = MAX_TOKENS,
) -> Pack:
    """Returns the pack of an incident.

    Where it has too many tokens, facts are left out: first those that only tell what is usual
    and what is missing, then what is around the incident, what is measured and unremarkable, spans,
    hardware, and the rest of the evidence from the last to the first. What the detector says of the
    incident as a whole always stays.

    Args:
        incident: as the detector and the hardware's readings tell it.
        context: what the report says around it.
        knowledge: what is known of causes; the package's own if None.
        send: what may leave beside the facts of traces.
        max_tokens: most tokens of its text.
    """
    names = Aliases()
    facts, untold = facts_of(incident, context or Context(), send, names)
    speaks = _speaking(incident, facts, knowledge or embedded())
    causes = _causes(speaks, knowledge or embedded())
    pack = Pack(
        facts=tuple(facts),
        left_out=untold,
        causes=causes,
        speaks=speaks,
        ranks=tuple(incident.culprit.ranks[:_MOST_RANKS]) if incident.culprit.sure else (),
        actions={f"A{n}": _brief(text) for n, text in enumerate(_actions(causes), start=1)},
        why_not=undecided(incident) or ("" if len(causes) > 1 else "no cause comes in question"),
        names=names,
    )
    return _fitted(pack, max_tokens)


def token_count(text: str) -> int:
    """Returns how many tokens a text has at most, whatever the tokenizer.

    Common words are one token, rare ones up to one for three letters; digits, signs and lines count
    one each, other characters one a byte. Tokenizers in use need fewer (docs/analyzer.md).
    """
    count = 0
    for piece in _PIECE.findall(text):
        if piece.isascii() and piece.isalpha():
            count += -(-len(piece) // 3)
        elif piece.isspace():
            count += piece.count("\n") + (len(piece) > 1)
        else:
            count += len(piece.encode())
    return count


def _fitted(pack: Pack, most: int) -> Pack:
    """Leaves out the least weighty facts, from the last, until the rest fits."""
    order = sorted(range(len(pack.facts)), key=lambda at: (pack.facts[at].weight, at))
    used = token_count(msgspec.structs.replace(pack, facts=(), left_out=9_999).text)
    kept: set[int] = set()
    for at in order:
        fact = pack.facts[at]
        used += token_count(f"{fact.id}: {fact.text}\n")
        if used > most and fact.weight:
            break  # not "the next that fits": what is left out is then one stretch of the order
        kept.add(at)
    return msgspec.structs.replace(
        pack,
        facts=tuple(fact for at, fact in enumerate(pack.facts) if at in kept),
        left_out=pack.left_out + len(pack.facts) - len(kept),
    )


def _speaking(
    incident: Incident, facts: Sequence[Fact], known: Knowledge
) -> dict[str, tuple[str, ...]]:
    """Returns the causes for which something speaks that is told, and what does."""
    told = {fact.source: fact.id for fact in facts if fact.source}
    speaks: dict[str, tuple[str, ...]] = {}
    for component in components(incident):
        for one in possible(incident, component, known) if component != "unknown" else ():
            ids = [told[fact.id] for fact in one.needed or one.support if fact.id in told]
            if ids and len(speaks) < _MOST_CAUSES:
                speaks[one.cause.id] = tuple(ids)
    return speaks


def _causes(speaks: Mapping[str, tuple[str, ...]], known: Knowledge) -> tuple[Cause, ...]:
    by_id = {cause.id: cause for cause in known.causes}
    return (*(by_id[name] for name in speaks), by_id[UNEXPLAINED])


def _actions(causes: Sequence[Cause]) -> list[str]:
    return list(dict.fromkeys(action for cause in causes for action in cause.actions))


def _brief(action: str) -> str:
    """Returns an action without its commands and without the places of names."""
    words = re.split(r": | \(|; ", action)[0]
    return (
        words.replace("{gpu}", "the GPU")
        .replace("{host}", "the host")
        .replace("{i}", "")
        .rstrip(".")
    )
