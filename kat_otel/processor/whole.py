"""One table of a step, of what came of its ranks: a resource a worker, and parents linked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from kat_otel.joined import EAGER, columns_of, joined
from kat_otel.otlp import parents_in_step
from kat_otel.spans import SpanTable

__all__ = ["whole_step"]


def whole_step(tables: Sequence[SpanTable]) -> SpanTable | None:
    """Returns all spans of a step, in a table of which half is put together when it is asked for.

    Args:
        tables: of one trace each, with no id twice among the spans of a worker.

    Returns:
        The table; None if it is not one table with one resource and the same texts for each rank.
    """
    ranks = {resource.rank for table in tables for resource in table.resources}
    if not len(ranks) == len(tables) == sum(len(table.resources) for table in tables):
        return None
    if len({id(table.strings) for table in tables}) != 1:
        return None
    columns = columns_of(tables, EAGER)
    ends = [0, *accumulate(map(len, tables))]
    parent = parents_in_step(columns["span_id"], columns["parent_id"], ends)
    return joined(tables, columns, parent)
