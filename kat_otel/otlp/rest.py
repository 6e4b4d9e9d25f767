"""Adds to spans what has no column: events, list attributes, an error status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from kat_otel.fields import REST
from kat_otel.otlp.wire import WireValue, attribute
from kat_otel.spans import AttributeValue

__all__ = ["Event", "events_of", "with_rest"]


@dataclass(frozen=True, slots=True)
class Event:
    """A span event.

    Attributes:
        name: its name.
        time_ns: Unix ns.
        attributes: scalars or lists.
    """

    name: str
    time_ns: int
    attributes: Mapping[str, WireValue] = field(default_factory=dict[str, WireValue])


def with_rest(
    values: Mapping[str, AttributeValue],
    *,
    events: tuple[Event, ...] = (),
    lists: Mapping[str, WireValue] | None = None,
    error: str = "",
) -> dict[str, AttributeValue]:
    """Returns a span's attributes without columns, with more for the wire beside them.

    Args:
        values: what ``SpanTable.attributes`` holds for the span.
        events: appended to its events.
        lists: attributes whose values are lists.
        error: if not empty, sets the status to error with this message.
    """
    more = Span(attributes=[attribute(key, value) for key, value in (lists or {}).items()])
    for event in events:
        pairs = [attribute(key, value) for key, value in event.attributes.items()]
        more.events.add(name=event.name, time_unix_nano=event.time_ns, attributes=pairs)
    if error:
        more.status.code = Status.STATUS_CODE_ERROR
        more.status.message = error
    kept = values.get(REST, b"")
    rest = (kept if isinstance(kept, bytes) else b"") + more.SerializeToString()
    return {**values, REST: rest} if rest else dict(values)


def events_of(values: Mapping[str, AttributeValue]) -> list[Event]:
    """Returns the events of a span, from what ``SpanTable.attributes`` holds for it."""
    kept = values.get(REST)
    if not isinstance(kept, bytes):
        return []
    return [
        Event(
            event.name,
            event.time_unix_nano,
            {pair.key: pair.value.string_value for pair in event.attributes},
        )
        for event in Span.FromString(kept).events
    ]
