"""What the host did during a step, said by a hook rather than seen by CUPTI.

KV-cache transfers between a prefill and a decode instance are such: they run on their own threads
and NICs, and no kernel shows them. The step maker hangs them under the worker step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kat_otel.errors import DecodeError

__all__ = ["HostRange", "HostRanges"]


@dataclass(frozen=True, slots=True)
class HostRange:
    """A named time of the host.

    Attributes:
        name: what it did.
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
            rows = tuple(
                HostRange(
                    str(name),
                    int(start),
                    int(end),
                    int(thread),
                    {str(k): v for k, v in attributes.items() if isinstance(v, str | int)},
                )
                for name, start, end, thread, attributes in said["ranges"]
            )
            return HostRanges(int(said["step"]), int(said["micro"]), rows, int(said["dropped"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"no host ranges: {error!r}") from error
