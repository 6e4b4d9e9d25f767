"""Several real control ports behind one name: a worker finds the one that judges its instance."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from kat_otel.capture import Poll
from kat_otel.config import Config, ControlConfig, ServerTlsConfig
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.places import Places, addresses_of
from kat_otel.instrumentation.settings import Settings
from kat_otel.processor.control import ControlServer
from kat_otel.telemetry import Books
from tests.instrumentation.sending.test_control import Watched
from tests.processor.receiving import Pki

ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


class Processor(ControlServer):
    """A control port at an address of its own, that is told which steps were judged."""

    def __init__(self, address: str, port: int, tls: ServerTlsConfig | None = None) -> None:
        self.books = Books()
        control = ControlConfig(
            endpoint=f"{address}:{port}", tls=tls, insecure=tls is None, poll_interval=0.02
        )
        super().__init__(Config(control=control), self.books)

    @property
    def polls(self) -> int:
        return self.books.marked("polls answered")

    def judge(self) -> None:
        self.found(SimpleNamespace(instance="llama"), ())  # type: ignore[arg-type]


@contextmanager
def serving(port: int, addresses: list[str], **how: object) -> Iterator[list[Processor]]:
    with ExitStack() as stack:
        served = [Processor(address, port, **how) for address in addresses]
        for one in served:
            one.start()
            stack.callback(one.stop)
        yield served


@contextmanager
def asking(counts: Counts, places: Places) -> Iterator[Watched]:
    """A worker that is ten steps further at each poll."""
    control = Watched(Settings(control_endpoint="http://unused"), counts, places=places)
    steps = itertools.count(0, 10)
    tell = control.on_orders

    def step() -> None:
        control.at(Poll("llama", 0, next(steps), 0))
        tell()

    control.on_orders = step
    control.start()
    step()
    try:
        yield control
    finally:
        control.close()


def in_order(url: str, addresses: list[str], ca_file: str = "") -> Places:
    """Places that are asked in the order of the list."""
    return Places(
        url,
        ca_file=ca_file,
        resolve=lambda *_: addresses.copy(),
        shuffle=lambda found: found.reverse(),
    )


def test_a_worker_asks_until_one_judges_its_instance_and_stays(
    counts: Counts, free_port: int
) -> None:
    places = in_order(f"http://localhost:{free_port}/v1/opamp", ADDRESSES)
    with serving(free_port, ADDRESSES) as processors, asking(counts, places) as control:
        first, judge, third = processors
        judge.judge()
        control.wait_for(lambda: judge.polls >= 10)
        assert first.polls == 2  # the first poll of all does not tell whether the worker steps
        assert third.polls == 0
        assert judge.request("llama", 50, "incident")
        control.wait_for(lambda: bool(control.orders and control.orders.captures))


def test_it_follows_its_instance_to_another(counts: Counts, free_port: int) -> None:
    addresses = ADDRESSES[:1]
    places = in_order(f"http://localhost:{free_port}/v1/opamp", addresses)
    with serving(free_port, ADDRESSES) as processors, asking(counts, places) as control:
        first, second, third = processors
        control.wait_for(lambda: first.polls >= 3)  # one address: asked again and again
        assert (second.polls, third.polls) == (0, 0)
        addresses += ADDRESSES[1:]
        third.judge()
        control.wait_for(lambda: third.polls >= 10)
        assert second.polls <= 1


def test_one_that_does_not_answer_is_passed_over(counts: Counts, free_port: int) -> None:
    places = in_order(f"http://localhost:{free_port}/v1/opamp", ADDRESSES)
    with serving(free_port, ADDRESSES[1:]) as (judge, _), asking(counts, places) as control:
        judge.judge()
        control.wait_for(lambda: judge.polls >= 5)
    assert counts["polls:unreachable"] == 1


def test_a_worker_without_steps_is_judged_nowhere_and_wanders_not(
    counts: Counts, free_port: int
) -> None:
    places = in_order(f"http://localhost:{free_port}/v1/opamp", ADDRESSES)
    control = Watched(Settings(control_endpoint="http://unused"), counts, places=places)
    with serving(free_port, ADDRESSES) as (first, *others):
        control.start()
        control.at(Poll("llama", 0, 120, 0))
        try:
            control.wait_for(lambda: first.polls >= 5)
        finally:
            control.close()
        assert [one.polls for one in others] == [0, 0]


def test_the_certificate_is_held_against_the_name_and_not_the_address(
    counts: Counts, free_port: int, tmp_path: Path
) -> None:
    pki = Pki(tmp_path)  # its certificate is for localhost and 127.0.0.1
    ca_file = str(pki.ca[0])
    with serving(free_port, ADDRESSES[1:], tls=pki.tls()) as (judge, _):
        judge.judge()
        right = in_order(f"https://localhost:{free_port}/v1/opamp", ADDRESSES[1:], ca_file)
        with asking(counts, right) as control:
            control.wait_for(lambda: judge.polls >= 3)
        answered = judge.polls
        wrong = in_order(f"https://elsewhere:{free_port}/v1/opamp", ADDRESSES[1:], ca_file)
        with asking(counts, wrong) as control:
            control.wait_for(lambda: counts["polls:unreachable"] >= 2)
        assert judge.polls == answered


def test_one_processor_alone_is_asked_over_one_connection() -> None:
    alone = in_order("http://localhost:4329/v1/opamp", ADDRESSES[:1])
    client = alone.client
    alone.go_on()
    assert alone.client is client
    several = in_order("http://localhost:4329/v1/opamp", ADDRESSES[:2])
    client = several.client
    several.go_on()
    assert several.client is not client


def test_a_name_that_nobody_knows_is_said_by_its_name(counts: Counts, caplog) -> None:
    places = Places("http://kat.invalid:4329/v1/opamp")
    with asking(counts, places) as control:
        control.wait_for(lambda: counts["polls:unreachable"] >= 1)
    assert "kat.invalid" in caplog.text


def test_two_families_of_one_processor_are_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    v4, v6 = socket.AF_INET, socket.AF_INET6
    found = [(v6, 0, 0, "", ("fd00::1", 1)), (v4, 0, 0, "", ("10.0.0.1", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert addresses_of("kat", 1) == ["fd00::1"]
    found.append((v4, 0, 0, "", ("10.0.0.2", 1)))
    assert addresses_of("kat", 1) == ["10.0.0.1", "10.0.0.2"]
