"""Ranges of the host go as JSON and come back."""

from __future__ import annotations

import json

import pytest

from kat_otel.errors import DecodeError
from kat_otel.instrumentation.host_ranges import HostRange, HostRanges


def test_they_come_back_as_they_went() -> None:
    ranges = HostRanges(3, 1, (HostRange("kv transfer", 10, 20, 7, {"engine": "p", "n": 2}),), 4)
    assert HostRanges.decode(json.loads(ranges.encode())["ranges"]) == ranges


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"step": 1, "micro": 0, "dropped": 0, "ranges": [["name", 1]]},
        {"step": 1, "micro": 0, "dropped": 0, "ranges": [["name", 1, 2, 3, None]]},
        {"step": "x", "micro": 0, "dropped": 0, "ranges": []},
    ],
)
def test_what_is_none_is_refused(said: object) -> None:
    with pytest.raises(DecodeError, match="no host ranges"):
        HostRanges.decode(said)
