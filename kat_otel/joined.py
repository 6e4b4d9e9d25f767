"""Tables put together as far as they are looked at: judging a healthy step needs half of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import COLUMNS, AttributeValue, SpanTable, uninitialised

__all__ = ["EAGER", "JoinedTable", "columns_of", "joined"]

EAGER = (
    *("span_id", "parent_id", "start_ns", "duration_ns", "name", "kind", "step"),
    *("stream", "grid", "block", "group"),
)
"""Columns that are there at once, beside ``parent`` and ``resource``."""

_LATER = tuple([name for name in COLUMNS if name not in {*EAGER, "parent", "resource"}])


class JoinedTable(SpanTable):
    """A table whose other columns are joined when one of them is first asked for.

    To everybody it is a :class:`SpanTable`; made by :func:`joined`.
    """

    __slots__ = ("_parts",)
    _parts: Sequence[SpanTable]

    def __getattr__(self, name: str) -> Any:
        """Joins the columns that are not there yet; only called for what is not."""
        if name not in _LATER:
            raise AttributeError(name)
        for column, values in columns_of(self._parts, _LATER).items():
            object.__setattr__(self, column, values)
        return object.__getattribute__(self, name)


def columns_of(tables: Sequence[SpanTable], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Returns some columns of all tables, in one piece of memory."""
    columns = uninitialised(sum(map(len, tables)), names)
    of_table = attrgetter(*columns)
    for whole, parts in zip(
        columns.values(), zip(*map(of_table, tables), strict=True), strict=True
    ):
        np.concatenate(parts, out=whole)
    return columns


def joined(
    tables: Sequence[SpanTable], columns: Mapping[str, NDArray[Any]], parent: NDArray[Any]
) -> JoinedTable:
    """Returns one table of several that share their texts.

    Args:
        tables: the parts, at least one, each of one resource.
        columns: :data:`EAGER`, of all of them.
        parent: rows of the parents.
    """
    lengths = np.fromiter(map(len, tables), np.int64)
    whole = JoinedTable.__new__(JoinedTable)
    attributes: dict[int, Mapping[str, AttributeValue]] = {}
    first = 0
    for table in tables:
        if table.attributes:
            attributes.update({first + row: said for row, said in table.attributes.items()})
        first += len(table)
    values = {
        "strings": tables[0].strings,
        "resources": tuple([resource for table in tables for resource in table.resources]),
        "attributes": attributes,
        "parent": parent,
        "resource": np.repeat(np.arange(len(tables), dtype=np.int32), lengths),
        "_parts": tables,
        **columns,
    }
    for name, value in values.items():
        object.__setattr__(whole, name, value)
    return whole
