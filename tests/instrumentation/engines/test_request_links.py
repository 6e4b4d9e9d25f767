"""Trace contexts of requests: what is valid, and how many are kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.instrumentation.engines.request_links import (
    LINKS,
    REQUESTS,
    Requests,
    parse_traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("headers", "pair"),
    [
        ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, (TRACE, SPAN)),
        ({"Traceparent": f" 00-{TRACE}-{SPAN}-00 "}, (TRACE, SPAN)),
        ({"traceparent": f"01-{TRACE}-{SPAN}-01-later"}, (TRACE, SPAN)),
        ({"traceparent": f"ff-{TRACE}-{SPAN}-01"}, None),
        ({"traceparent": f"00-{'0' * 32}-{SPAN}-01"}, None),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"traceparent": f"00-{TRACE.upper()}-{SPAN}-01"}, None),
        ({"tracestate": "x=1"}, None),
        ({1: 2}, None),
        (None, None),
        ("traceparent", None),
    ],
)
def test_w3c_trace_context(headers: Any, pair: tuple[str, str] | None) -> None:
    assert parse_traceparent(headers) == pair


@given(st.text())
def test_no_header_is_too_strange(value: str) -> None:
    parse_traceparent({"traceparent": value})


def test_requests_are_bounded_and_forgotten() -> None:
    requests = Requests()
    for number in range(REQUESTS + 5):
        requests.add(str(number), (f"{number:032x}", SPAN))
    assert len(requests) == REQUESTS
    assert requests.of(["0", "4", "5"]) == ((f"{5:032x}", SPAN),)
    requests.forget(["5", "no such"])
    assert requests.of(["5"]) == ()
    requests.add("none", None)
    assert requests.of(["none"]) == ()


def test_links_of_a_step_are_bounded_and_each_once() -> None:
    requests = Requests()
    for number in range(2 * LINKS):
        requests.add(str(number), (f"{number // 2:032x}", SPAN))
    found = requests.of(map(str, range(2 * LINKS)))
    assert len(found) == len(set(found)) == LINKS
