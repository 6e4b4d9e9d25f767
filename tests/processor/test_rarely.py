"""A topic is said once an interval, with how often it was kept quiet."""

import time

from kat_otel.processor.rarely import Rarely


def test_a_topic_is_said_at_once_and_then_kept_quiet_and_counted(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rarely = Rarely()
    assert rarely.unsaid("full") == 0
    assert [rarely.unsaid("full") for _ in range(3)] == [None] * 3
    assert rarely.unsaid("other") == 0
    now += 10.0
    assert rarely.unsaid("full") == 3
    assert rarely.unsaid("full") is None


def test_a_clock_that_has_just_started_keeps_nothing_quiet(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert Rarely().unsaid("full") == 0


def test_topics_are_bounded(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    rarely = Rarely()
    for number in range(10_000):
        rarely.unsaid(number)
    assert len(rarely._said) < 300
