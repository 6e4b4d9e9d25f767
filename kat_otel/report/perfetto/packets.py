"""Packets of a Perfetto trace that are made one at a time: tracks, texts, the verdict's slices.

Field numbers are those of protos/perfetto/trace/perfetto_trace.proto. A trace is nothing but its
packets, one after the other, so that they can be written as they are made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kat_otel.report.sentences import printable
from kat_otel.wire import delimited, utf8, varint

__all__ = ["BEGIN", "END", "Slice", "Texts", "beginning", "clocks", "packet", "text", "track"]

BEGIN, END = 1, 2
"""TrackEvent.Type."""
_BOOTTIME, _REALTIME = 6, 1
_EXPLICIT: Final = 3
_SEQUENCE: Final = b"\x50\x01"
"""Every packet is of sequence 1: what is interned holds for all of them."""
_CLEARED: Final = b"\x68\x01"
_TEXTS_A_PACKET: Final = 1_000
_MAX_TEXT: Final = 1_000

Argument = str | int | float


def packet(fields: bytes) -> bytes:
    """Returns the fields of a TracePacket as a packet of the trace."""
    return delimited(b"\x0a", fields)


def beginning() -> bytes:
    """Returns the first packet: from here on, texts have numbers."""
    return packet(_SEQUENCE + _CLEARED)


def clocks(unix_ns: int) -> bytes:
    """Returns the packet that says that the trace's clock is Unix time, so that UTC is shown."""
    both = b"".join(
        delimited(b"\x0a", b"\x08" + varint(clock) + b"\x10" + varint(unix_ns))
        for clock in (_BOOTTIME, _REALTIME)
    )
    return packet(delimited(b"\x32", both))


def track(uuid: int, name: str, *, parent: int = 0, place: int = 0, description: str = "") -> bytes:
    """Returns the packet of a track; its children are shown in the order of their places."""
    fields = b"\x08" + varint(uuid) + delimited(b"\x12", text(name))
    if parent:
        fields += b"\x28" + varint(parent)
    fields += b"\x58" + varint(_EXPLICIT) + b"\x60" + varint(place)
    if description:
        fields += delimited(b"\x72", text(description))
    return packet(_SEQUENCE + delimited(b"\xe2\x03", fields))


def text(value: str) -> bytes:
    """Returns a text of a trace, which is untrusted, on one line and bounded."""
    return utf8(printable(value[:_MAX_TEXT]))


class Texts:
    """Texts with numbers, of one of the tables of InternedData.

    Args:
        tag: the table's field in InternedData.
    """

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._numbers: dict[str, int] = {}

    def number(self, value: str) -> int:
        """Returns the number of a text, counted from 1."""
        return self._numbers.setdefault(value, len(self._numbers) + 1)

    def packets(self) -> Iterator[bytes]:
        """Yields the packets that say which text has which number."""
        pairs = [*self._numbers.items()]
        for first in range(0, len(pairs), _TEXTS_A_PACKET):
            table = b"".join(
                delimited(self._tag, b"\x08" + varint(number) + delimited(b"\x12", text(value)))
                for value, number in pairs[first : first + _TEXTS_A_PACKET]
            )
            yield packet(_SEQUENCE + delimited(b"\x62", table))


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice that the verdict adds or marks.

    Attributes:
        start_ns, end_ns: Unix ns on the common clock.
        track: uuid of its track.
        name, categories: as shown.
        arguments: as shown beside it.
        flows: ids of arrows that begin or end here.
        child: whether it lies in a span that begins with it.
    """

    start_ns: int
    end_ns: int
    track: int
    name: str
    categories: Sequence[str]
    arguments: Mapping[str, Argument] = field(default_factory=dict[str, Argument])
    flows: Sequence[int] = ()
    child: bool = False

    def begin(self) -> bytes:
        """Returns the packet that begins it."""
        fields = b"\x48\x01\x58" + varint(self.track) + delimited(b"\xba\x01", text(self.name))
        fields += b"".join(delimited(b"\xb2\x01", text(value)) for value in self.categories)
        fields += b"".join(_arguments(self.arguments.items()))
        fields += b"".join(b"\xf9\x02" + struct.pack("<Q", flow) for flow in self.flows)
        return _event(self.start_ns, fields)

    def end(self) -> bytes:
        """Returns the packet that ends it."""
        return _event(self.end_ns, b"\x48\x02\x58" + varint(self.track))


def _event(at_ns: int, fields: bytes) -> bytes:
    return packet(b"\x40" + varint(at_ns) + _SEQUENCE + delimited(b"\x5a", fields))


def _arguments(pairs: Iterable[tuple[str, Argument]]) -> Iterator[bytes]:
    for name, value in pairs:
        said = delimited(b"\x52", text(name))
        if isinstance(value, str):
            said += delimited(b"\x32", text(value))
        elif isinstance(value, float):
            said += b"\x29" + struct.pack("<d", value)
        else:
            said += b"\x20" + varint(value & (2**64 - 1))
        yield delimited(b"\x22", said)
