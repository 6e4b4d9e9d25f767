"""The scanner finds the ends of events as a JSON parser would, whatever strings they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.readers.scanner import EventScanner, ScanError

NASTY = st.text(alphabet='{}[]"\\,: \n\té😀ab', max_size=12)
VALUES = st.recursive(
    NASTY | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(st.dictionaries(NASTY, VALUES, max_size=4), max_size=8)
FRAMES = st.dictionaries(NASTY.filter(lambda key: key != "traceEvents"), VALUES, max_size=3)


def scan(text: bytes, size: int) -> tuple[EventScanner, list[Any]]:
    scanner = EventScanner()
    found: list[Any] = []
    for at in range(0, len(text), size):
        run = scanner.feed(text[at : at + size])
        if run is not None:
            one_by_one = [json.loads(event) for event in run.events()]
            assert json.loads(b"[" + run.text + b"]") == one_by_one
            assert text[run.offset : run.offset + len(run.text)] == run.text
            found += one_by_one
    return scanner, found


@given(
    events=EVENTS,
    head=FRAMES,
    tail=FRAMES,
    size=st.integers(1, 200),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
@settings(max_examples=300, deadline=None)
def test_events_and_frame_are_those_of_the_json(events, head, tail, size, ascii_only, indent):
    tail = {key: value for key, value in tail.items() if key not in head}
    whole = {**head, "traceEvents": events, **tail}
    text = json.dumps(whole, ensure_ascii=ascii_only, indent=indent).encode()
    scanner, found = scan(text, size)
    assert scanner.complete
    assert found == events
    assert json.loads(scanner.frame) == {**whole, "traceEvents": []}


@given(events=EVENTS, size=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_a_bare_list_is_a_trace_too(events, size):
    scanner, found = scan(json.dumps(events).encode(), size)
    assert scanner.complete
    assert found == events


@given(events=EVENTS, size=st.integers(1, 200), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_cut_file_gives_the_events_that_are_whole_and_is_not_complete(events, size, data):
    text = json.dumps({"traceEvents": events}).encode()
    cut = data.draw(st.integers(1, len(text) - 3))
    scanner, found = scan(text[:cut], size)
    assert not scanner.complete
    assert found == events[: len(found)]
    assert scanner.offset <= cut


def test_the_key_inside_a_string_or_deeper_down_is_not_the_list():
    whole = {"note": '"traceEvents": [', "other": {"traceEvents": [{"a": 1}]}}
    text = json.dumps({**whole, "traceEvents": [{"b": 2}]}).encode()
    _, found = scan(text, 7)
    assert found == [{"b": 2}]


def test_an_event_without_end_is_refused_instead_of_filling_memory():
    scanner = EventScanner()
    scanner.feed(b'[{"name": "')
    for _ in range(15):
        scanner.feed(b"x" * (1 << 20))
    with pytest.raises(ScanError, match="16 MiB"):
        scanner.feed(b"x" * (1 << 20))
