"""Spans that the walker left: read by the protobuf library, put into their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.otlp.headers import Scopes
from kat_otel.otlp.reference import Rows, parse, problem_of, reject
from kat_otel.otlp.rejected import Rejected
from kat_otel.spans import AttributeValue, SpanTable
from kat_otel.wire import delimited

__all__ = ["mend"]

_AT_ONCE: Final = 4_096  # a small span is a large object: so many are held at once, no more


def mend(
    data: bytes,
    found: Scopes,
    slow: NDArray[np.int64],
    table: SpanTable,
    rejected: Rejected | None,
    max_attribute_bytes: int | None,
    refused: NDArray[np.bool_] | None = None,
) -> SpanTable:
    """Returns the table with its slow rows filled, those that cannot be taken left out.

    Args:
        refused: rows that are left out in any case, and counted already.

    Raises:
        DecodeError: a span is malformed, or is bad and nobody counts.
    """
    dropped: list[int] = []
    attributes: dict[int, Mapping[str, AttributeValue]] = {}
    for first in range(0, len(slow), _AT_ONCE):
        part = slow[first : first + _AT_ONCE]
        stretches: list[list[int]] = (found.spans[part] - found.base).tolist()
        spans = b"".join(delimited(b"\x12", data[begin:end]) for begin, end in stretches)
        # As deep in the message as they were found: the library counts levels.
        message = parse(delimited(b"\x0a", delimited(b"\x12", spans)))
        rows = Rows(table.strings)
        kept: list[int] = []
        for row, span in zip(
            part.tolist(), message.resource_spans[0].scope_spans[0].spans, strict=True
        ):
            if refused is not None and refused[row]:
                dropped.append(row)
                continue
            problem = problem_of(span, max_attribute_bytes)
            if problem:
                reject(_place(found, row), span, problem, rejected)
                dropped.append(row)
            else:
                kept.append(row)
                rows.add(span)
        for name, values in rows.columns().items():
            getattr(table, name)[kept] = values
        for at, values in rows.attributes.items():
            attributes[kept[at]] = values
    if attributes:
        table = replace(table, attributes={**table.attributes, **attributes})
    if not dropped and refused is None:
        return table
    keep = np.ones(len(table), np.bool_) if refused is None else ~refused
    keep[dropped] = False
    return table.take(keep)


def _place(found: Scopes, row: int) -> str:
    scope = int(np.searchsorted(found.scopes[:-1, 0], row, side="right")) - 1
    resource = int(found.scopes[scope, 1])
    scope_of_resource = scope - int(np.searchsorted(found.scopes[:-1, 1], resource))
    at = row - int(found.scopes[scope, 0])
    return f"resource_spans[{resource}].scope_spans[{scope_of_resource}].spans[{at}]"
