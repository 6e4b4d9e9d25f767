"""Ranges of the host go as JSON and come back."""

from __future__ import annotations

import json

import pytest

from kat_otel.errors import DecodeError
from kat_otel.instrumentation.steps.host_ranges import HostRange, HostRanges


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
        {"step": float("inf"), "micro": 0, "dropped": 0, "ranges": []},
        {"step": 1, "micro": 0, "dropped": 0, "ranges": [["ends first", 2, 1, 3, {}]]},
        {"step": 1, "micro": 0, "dropped": 0, "ranges": [["too late", 1, 2**63, 3, {}]]},
        {"step": 1, "micro": 0, "dropped": 0, "ranges": [["n", 1, 2, 3, {}]] * 257},
    ],
)
def test_what_is_none_is_refused(said: object) -> None:
    with pytest.raises(DecodeError, match="no host ranges"):
        HostRanges.decode(said)


def test_what_a_range_says_is_bounded() -> None:
    said = {"long": "x" * 1_000, "huge": 2**64, "list": [1], **{f"k{i}": i for i in range(100)}}
    row = ["n" * 1_000, 1, 2, 3, said]
    (one,) = HostRanges.decode({"step": 1, "micro": 0, "dropped": 0, "ranges": [row]}).ranges
    assert len(one.name) == len(one.attributes["long"]) == 256
    assert len(one.attributes) == 16
    assert "huge" not in one.attributes
    assert "list" not in one.attributes
