"""What the metrics say of lateness at collectives."""

import numpy as np
import pytest

from kat_otel.processor.measure import arrival_lateness
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder


def collectives(starts: dict[int, list[int]], name: str = "ncclDevKernel_AllReduce") -> SpanTable:
    builder = SpanTableBuilder()
    index = builder.strings.add(name)
    for rank, times in starts.items():
        resource = builder.add_resource(Resource(rank=rank))
        builder.append(
            len(times),
            start_ns=np.array(times),
            duration_ns=10,
            name=index,
            kind=SpanKind.COLLECTIVE,
            resource=resource,
        )
    return builder.build()


def test_lateness_is_the_median_over_the_collectives_after_the_earliest_rank():
    table = collectives({0: [100, 200, 300], 1: [130, 230, 900], 2: [101, 202, 303]})
    assert arrival_lateness(table) == {0: 0, 1: 30, 2: 2}


@pytest.mark.parametrize(
    "table",
    [
        collectives({}),
        collectives({0: [1, 2]}),
        collectives({0: [1, 2], 1: [1]}),
        collectives({0: [1], 1: [5]}, name="ncclDevKernel_SendRecv"),
    ],
    ids=["none", "one rank", "unequal counts", "no barrier"],
)
def test_what_cannot_be_compared_has_no_lateness(table):
    assert arrival_lateness(table) == {}
