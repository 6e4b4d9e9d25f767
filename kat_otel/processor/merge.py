"""One resource a worker, though every batch brought its own."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import numpy as np

from kat_otel.spans import Resource, SpanTable

__all__ = ["merge_resources"]


def merge_resources(table: SpanTable) -> SpanTable:
    """Returns the table with equal resources said once and unused ones left out."""
    used: list[int] = np.flatnonzero(np.bincount(table.resource)).tolist()
    of_rank = len({table.resources[index].rank for index in used}) == len(used)
    if of_rank and len(used) == len(table.resources):
        return table  # a batch a rank, mostly
    kept: dict[object, int] = {}
    resources: list[Resource] = []
    moved = np.zeros(len(table.resources), dtype=np.int32)
    for index in used:
        resource = table.resources[index]
        key = resource.rank if of_rank else _key(resource)
        if key not in kept:
            kept[key] = len(resources)
            resources.append(resource)
        moved[index] = kept[key]
    if len(resources) == len(table.resources):
        return table
    columns = moved[table.resource] if len(table) else table.resource
    return replace(table.with_columns(resource=columns), resources=tuple(resources))


def _key(resource: Resource) -> tuple[object, ...]:
    said = sorted((key, type(value).__name__, value) for key, value in resource.attributes.items())
    return (*_plain(resource), *said)


_plain = attrgetter(*(name for name in Resource.__slots__ if name != "attributes"))
