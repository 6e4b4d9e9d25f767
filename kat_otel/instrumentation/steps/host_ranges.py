"""What the host did during a step, said by a hook rather than seen by CUPTI.

KV-cache transfers between a prefill and a decode instance are such: they run on their own threads
and NICs, and no kernel shows them. The step maker hangs them under the worker step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kat_otel.errors import DecodeError

__all__ = ["MOST_RANGES", "HostRange", "HostRanges"]

MOST_RANGES: Final = 256
"""Of one message; one with more makes no sense."""

_MOST_ATTRIBUTES: Final = 16
_LONGEST: Final = 256
_LEAST, _MOST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class HostRange:
    """A named time of the host.

    Attributes:
        name: what it did, 256 characters at most, as texts of attributes are.
        start_ns, end_ns: Unix time.
        thread: the operating system's id.
        attributes: for its span.
    """

    name: str
    start_ns: int
    end_ns: int
    thread: int
    attributes: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


@dataclass(frozen=True, slots=True)
class HostRanges:
    """Ranges that ended during a step: ``{"ranges": {"step", "micro", "ranges", "dropped"}}``.

    Attributes:
        step, micro: which.
        ranges: in the order in which they ended.
        dropped: ranges for which there was no room, since the start of the process.
    """

    step: int
    micro: int
    ranges: tuple[HostRange, ...]
    dropped: int = 0

    def encode(self) -> bytes:
        """Returns the message; each range is ``[name, start, end, thread, attributes]``."""
        rows = [[r.name, r.start_ns, r.end_ns, r.thread, dict(r.attributes)] for r in self.ranges]
        said = {"step": self.step, "micro": self.micro, "ranges": rows, "dropped": self.dropped}
        return json.dumps({"ranges": said}).encode()

    @staticmethod
    def decode(said: Any) -> HostRanges:
        """Reads the value of ``ranges`` in such a message.

        Raises:
            DecodeError: it is not one.
        """
        try:
            if len(said["ranges"]) > MOST_RANGES:
                raise ValueError(f"{len(said['ranges'])} ranges, at most {MOST_RANGES}")
            rows = tuple(
                HostRange(
                    str(name)[:_LONGEST],
                    _whole(start),
                    _whole(end, int(start)),
                    _whole(thread),
                    _attributes(attributes),
                )
                for name, start, end, thread, attributes in said["ranges"]
            )
            step, micro, dropped = (_whole(said[key]) for key in ("step", "micro", "dropped"))
            return HostRanges(step, micro, rows, dropped)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"no host ranges: {error!r}") from error


def _whole(value: Any, least: int = 0) -> int:
    number = int(value)
    if not least <= number <= _MOST:
        raise ValueError(f"{number} is not from {least} to {_MOST}")
    return number


def _attributes(said: Mapping[Any, Any]) -> dict[str, str | int]:
    """Returns texts and 64-bit numbers among what is said, the first few; others are left out."""
    kept: dict[str, str | int] = {}
    for key, value in said.items():
        if len(kept) == _MOST_ATTRIBUTES:
            break
        if isinstance(value, str):
            kept[str(key)[:_LONGEST]] = value[:_LONGEST]
        elif isinstance(value, int) and _LEAST <= value <= _MOST:
            kept[str(key)[:_LONGEST]] = value
    return kept
