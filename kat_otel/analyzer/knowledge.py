"""The knowledge file: loaded once, checked whole, and refused with the place of what is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final, get_args

import msgspec

from kat_otel.errors import ConfigError
from kat_otel.verdict import Component, Kind

__all__ = ["UNEXPLAINED", "Cause", "Knowledge", "Pattern", "embedded", "load"]

UNEXPLAINED: Final = "unexplained"
"""The cause that is named when none is."""

_FILE: Final = Path(__file__).with_name("knowledge.yaml")
_PLACES: Final = frozenset({"gpu", "host", "i"})
_PLACE: Final = re.compile(r"\{([^}]*)\}")


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Pattern(_Record, frozen=True, kw_only=True):
    """A fact by its signal; the bounds are on the size of its value, in the fact's own unit."""

    signal: str
    at_least: float | None = None
    below: float | None = None


class Cause(_Record, frozen=True, kw_only=True):
    """One root cause.

    Attributes:
        needs: facts of which one must be there; empty for what is said without any.
        supports, contradicts: facts for it and against it, beside those it needs.
        says: the mechanism in one sentence without a number: numbers come from the facts.
        confidence: the most that this cause is ever believed.
    """

    id: str
    component: Component
    title: str
    says: str
    actions: list[str]
    kinds: list[Kind] = []
    needs: list[Pattern] = []
    supports: list[Pattern] = []
    contradicts: list[Pattern] = []
    references: list[str] = []
    confidence: float = 1.0


class Knowledge(_Record, frozen=True, kw_only=True):
    """The whole file; of causes that fit equally well the first is named."""

    version: str
    causes: list[Cause]

    def of(self, component: Component, kind: Kind) -> list[Cause]:
        """Returns the causes of a component that come in question for a kind, in order."""
        return [c for c in self.causes if c.component == component and kind in (c.kinds or [kind])]

    def usual(self, component: Component) -> Cause:
        """Returns the cause of a component that needs no fact of its own."""
        return next(c for c in self.causes if c.component == component and _is_usual(c))


@cache
def embedded() -> Knowledge:
    """Returns the knowledge of the package."""
    return load(_FILE)


def load(path: Path) -> Knowledge:
    """Reads and checks a knowledge file.

    Raises:
        ConfigError: it cannot be read, or what it says cannot be used; the message names the file
            and the cause or field.
    """
    try:
        knowledge = msgspec.yaml.decode(path.read_bytes(), type=Knowledge)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}) — name another") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error} — correct this place of the file") from error
    if problems := list(_problems(knowledge)):
        raise ConfigError(f"{path}: {'; '.join(problems)} — correct the causes named")
    return knowledge


def _is_usual(cause: Cause) -> bool:
    return not cause.needs and not cause.kinds


def _problems(knowledge: Knowledge) -> Iterable[str]:
    for name, count in Counter(cause.id for cause in knowledge.causes).items():
        if count > 1:
            yield f"cause {name!r} stands there {count} times"
    usual = Counter(cause.component for cause in knowledge.causes if _is_usual(cause))
    for component in get_args(Component):
        if usual[component] != 1:
            yield (
                f"component {component!r} has {usual[component]} causes without needs and kinds, "
                "and needs exactly one"
            )
    if all(cause.id != UNEXPLAINED for cause in knowledge.causes):
        yield f"cause {UNEXPLAINED!r} is not there"
    for cause in knowledge.causes:
        yield from _problems_of(cause)


def _problems_of(cause: Cause) -> Iterable[str]:
    if re.search(r"\d", cause.says + cause.title):
        yield f"cause {cause.id!r}: a number in title or says, where only facts may bring one"
    if not cause.actions:
        yield f"cause {cause.id!r}: no action"
    if not 0 < cause.confidence <= 1:
        yield f"cause {cause.id!r}: confidence {cause.confidence} is not above 0 and at most 1"
    for action in cause.actions:
        for place in _PLACE.findall(action):
            if place not in _PLACES:
                yield f"cause {cause.id!r}: {{{place}}} is none of {{gpu}}, {{host}}, {{i}}"
