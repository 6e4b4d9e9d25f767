"""What workers and processor say to each other about whole steps, inside OpAMP's custom messages.

A worker polls: who it is, the step it is at, the oldest step that its flight recorder holds. The
answer says how much to send at all, and which steps to send whole: the same on all ranks. JSON,
with every field checked; the numbers are small. ``docs/digests.md`` shows both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from kat_otel.errors import DecodeError
from kat_otel.identity import nonce_of

__all__ = ["CAPABILITY", "Capture", "Mode", "Orders", "Poll", "capture_nonce"]

CAPABILITY: Final = "io.opentelemetry.kat.capture"
POLL: Final = "poll"
ORDERS: Final = "orders"

Mode = Literal["full", "digest", "off"]
"""full: digests, sampled and asked steps; digest: digests alone; off: nothing is recorded."""

_MAX_STEP: Final = 2**31 - 1
_MAX_TEXT: Final = 256


def capture_nonce(nonce: int, capture: str) -> int:
    """Returns the nonce for the trace of a recorded step that is sent again, whole.

    Its digest has left under the step's own trace id and was judged; the whole step is a trace
    of its own, and all ranks derive the same one.
    """
    return nonce_of(f"{nonce:016x} capture {capture}")


@dataclass(frozen=True, slots=True)
class Poll:
    """A worker's question.

    Attributes:
        instance: its ``kat.instance.id``.
        rank: its rank.
        step: the step it is at.
        recorded_from: the oldest step that it could still send whole.
    """

    instance: str
    rank: int
    step: int
    recorded_from: int

    def encode(self) -> bytes:
        """Returns the question as JSON."""
        return json.dumps(
            {
                "version": 1,
                "instance": self.instance,
                "rank": self.rank,
                "step": self.step,
                "recorded_from": self.recorded_from,
            }
        ).encode()

    @staticmethod
    def decode(data: bytes) -> Poll:
        """Reads a question.

        Raises:
            DecodeError: a field is missing or not what it must be.
        """
        said = _object(data)
        return Poll(
            _text(said, "instance"),
            _number(said, "rank"),
            _number(said, "step"),
            _number(said, "recorded_from"),
        )


@dataclass(frozen=True, slots=True)
class Capture:
    """Steps to send whole.

    Attributes:
        id: of the request; recorded steps are sent under :func:`capture_nonce` of it.
        recorded: first and last step to send from the recorder; first > last for none.
        next: first and last step to send when they have run.
        reason: incident that asks, or who.
    """

    id: str
    recorded: tuple[int, int]
    next: tuple[int, int]
    reason: str

    def wants(self, step: int) -> bool:
        """Returns whether a step is to be sent whole, recorded or when it has run."""
        return any(first <= step <= last for first, last in (self.recorded, self.next))


@dataclass(frozen=True, slots=True)
class Orders:
    """The answer.

    Attributes:
        mode: how much to send at all.
        sample_every: every so many steps one is sent whole (step number divisible by it); 0: none;
            None: the workers' own setting holds.
        poll_seconds: when to ask again.
        captures: steps to send whole beside those.
        judged_here: whether this processor judges the worker's instance; of several, one does.
    """

    mode: Mode = "full"
    sample_every: int | None = None
    poll_seconds: float = 1.0
    captures: tuple[Capture, ...] = ()
    judged_here: bool = True

    def encode(self) -> bytes:
        """Returns the answer as JSON."""
        captures = [
            {"id": c.id, "recorded": c.recorded, "next": c.next, "reason": c.reason}
            for c in self.captures
        ]
        return json.dumps(
            {
                "version": 1,
                "mode": self.mode,
                "sample_every": self.sample_every,
                "poll_ms": round(1e3 * self.poll_seconds),
                "captures": captures,
                "judged_here": self.judged_here,
            }
        ).encode()

    @staticmethod
    def decode(data: bytes) -> Orders:
        """Reads an answer.

        Raises:
            DecodeError: a field is missing or not what it must be.
        """
        said = _object(data)
        mode = _text(said, "mode")
        if mode not in get_args(Mode):
            raise DecodeError(f"mode {mode!r} is none of {', '.join(get_args(Mode))}")
        captures = said.get("captures")
        if not isinstance(captures, list):
            raise DecodeError("captures is not a list")
        return Orders(
            cast(Mode, mode),
            None if said.get("sample_every") is None else _number(said, "sample_every"),
            _number(said, "poll_ms") / 1e3,
            tuple(_capture(one) for one in cast(list[Any], captures)[:64]),
            # A processor that does not say it is older than there could be several.
            said.get("judged_here") is not False,
        )


def _capture(said: Any) -> Capture:
    if not isinstance(said, dict):
        raise DecodeError("a capture is not an object")
    fields = cast(dict[str, Any], said)
    return Capture(
        _text(fields, "id"),
        _steps(fields, "recorded"),
        _steps(fields, "next"),
        _text(fields, "reason"),
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("no JSON") from error
    if not isinstance(said, dict):
        raise DecodeError("no JSON object")
    fields = cast(dict[str, Any], said)
    if fields.get("version") != 1:
        raise DecodeError(f"version {str(fields.get('version'))[:20]!r}, version 1 is known")
    return fields


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise DecodeError(f"{key} is not a text of at most {_MAX_TEXT} characters")
    return value


def _number(said: dict[str, Any], key: str) -> int:
    value = said.get(key)
    if type(value) is not int or not 0 <= value <= _MAX_STEP:
        raise DecodeError(f"{key} is not an integer from 0 to {_MAX_STEP}")
    return value


def _steps(said: dict[str, Any], key: str) -> tuple[int, int]:
    value = said.get(key)
    if not isinstance(value, list) or len(cast(list[Any], value)) != 2:
        raise DecodeError(f"{key} is not a pair of steps")
    pair: dict[str, Any] = dict(zip(("first", "last"), cast(list[Any], value), strict=True))
    return _number(pair, "first"), _number(pair, "last")
