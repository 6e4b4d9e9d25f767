"""What may go wrong on the way, with the real collector; each test ends with the books.

sender -> gateway.yaml (queue on disk) -> kat process (log on disk) -> the same collector -> sink
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel import semconv
from tests.integration.servers import WHOLE
from tests.integration.traffic import Instance, Sender, absent, span_ids

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

INSTANCE = Instance("faulty-way")
PADDING = b"\xfa\x7f\x80\x80\x40" + bytes(2**20)
"""A MiB in a field that OTLP does not know, so that few requests fill a log."""


class Way:
    """The whole way, and what is asked of it in the end.

    Args:
        straight: the processor sends to the sink itself: the collector's way out would take into
            its queue what the sink does not take, and the processor would never have to wait.
    """

    def __init__(self, servers, sink, *, straight=False, **settings):
        self.servers, self.sink = servers, sink
        self.endpoint, back = servers.endpoint(), servers.endpoint()
        exporter = sink.endpoint if straight else back
        self.kat = servers.kat("kat", exporter, **{**WHOLE, **settings})
        self.collector = servers.gateway(
            self.kat, endpoint=self.endpoint, back=back, traces=sink.endpoint
        )

    def closes(self, requests, *, within=90.0):
        """All that was sent is at the backend, and the books of the processor's life are even."""
        sent = span_ids(requests)
        try:
            self.servers.until("every span", lambda: not self.sink.missing(sent), within=within)
        except AssertionError as error:
            error.add_note(f"missing: {absent(requests, self.sink.missing(sent))}")
            error.add_note(f"books: {self.kat.books()}")
            raise
        self.servers.until("the books", lambda: self.kat.books().pending == 0)
        books = self.kat.books()
        assert (books.unexplained, books.lost) == (0, 0), str(books)
        return books


@pytest.fixture
def way(servers, sink):
    return Way(servers, sink)


def in_background(sender, requests):
    """Sends at the pace of a fleet, not at once: the fault is to hit something under way."""
    thread = threading.Thread(target=sender.send, args=(requests,), kwargs={"pause": 0.02})
    thread.start()
    return thread


def test_the_processor_is_killed_under_load_three_times(servers, sink, way):
    requests = INSTANCE.steps(range(150))
    with Sender(way.endpoint) as sender:
        sending = in_background(sender, requests)
        for already in (1, 2, 3):
            so_far = len(span_ids(requests)) * already // 6
            servers.until("some spans", lambda n=so_far: len(sink.copies) > n)
            way.kat.kill()
            servers.restart(way.kat)
            servers.until("the processor", lambda: way.kat.books().healthy)
        sending.join()
    assert sender.acknowledged == span_ids(requests)
    way.closes(requests)


def test_the_backend_is_away_for_a_minute(servers, sink, way):
    requests = INSTANCE.steps(range(100))
    sink.down()
    with Sender(way.endpoint) as sender:
        begun = time.monotonic()
        sender.send(requests)
    time.sleep(max(0.0, begun + 60 - time.monotonic()))  # a minute is the case
    sink.up()
    books = way.closes(requests)
    assert books.taken - books.repeated == len(span_ids(requests))


def test_the_collector_is_killed_while_its_queue_is_full_of_spans(servers, sink, way):
    way.kat.kill()  # so that they wait in the collector
    requests = INSTANCE.steps(range(40))
    with Sender(way.endpoint) as sender:
        sender.send(requests)
    way.collector.kill()
    servers.restart(way.collector)
    servers.until("the collector", lambda: servers.collector_is_up(way.collector))
    servers.restart(way.kat)
    servers.until("the processor", lambda: way.kat.books().healthy)
    way.closes(requests)


def refused(kat):
    return kat.books().events.get("requests refused", 0)


def test_a_log_that_is_full_makes_the_collector_wait_and_loses_nothing(servers, sink):
    way = Way(servers, sink, straight=True, wal={"max_size_mib": 64})
    sink.down()
    requests = [request.padded(2**20) for request in INSTANCE.steps(range(30))]
    with Sender(way.endpoint) as sender:
        sender.send(requests)
    servers.until("a refusal", lambda: refused(way.kat))
    assert way.kat.books().healthy, "a full log is no failure of the processor"
    sink.up()
    books = way.closes(requests)
    assert books.taken - books.repeated == len(span_ids(requests)), str(books)


def test_a_log_full_of_steps_that_nobody_completes_empties_when_they_are_judged(servers, sink):
    # What the ranks that are there have sent fills the log, and the one whose spans would complete
    # the steps is not heard before they have left: nothing but the deadline can end this.
    patience = {"assembler": {"decision_wait": "15s"}, "wal": {"max_size_mib": 64}}
    kat = servers.kat("kat", sink.endpoint, **patience, **WHOLE)
    requests = [replace(r, data=r.data + 4 * PADDING) for r in INSTANCE.steps(range(8))]
    last = [request for request in requests if request.rank == 3]
    with Sender(kat.endpoint, patience=120) as sender:
        sending = in_background(sender, [r for r in requests if r.rank != 3] + last)
        servers.until("a refusal", lambda: sender.refusals > 0)
        assert not sink.copies, "the log is full of what cannot leave yet"
        assert kat.books().events.get("steps waited", 0) == 0
        sending.join()
    servers.until("every span", lambda: not sink.missing(span_ids(requests)))
    servers.until("the books", lambda: kat.books().pending == 0)
    books = kat.books()
    assert (books.unexplained, books.lost) == (0, 0), str(books)
    assert books.taken - books.repeated == len(span_ids(requests)), str(books)
    assert books.events["steps waited"] > 0


def test_a_disk_that_is_full_makes_the_collector_wait(servers, sink, tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("no unshare for a small disk: apt-get install util-linux")
    # A disk of its own, 8 MiB small, that only this process and its children see: as root, or as a
    # user who may have a mount namespace.
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace: sudo make test-slow")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=8m tmpfs {disk} && exec "$@"'
    small_disk = [*unshare, "sh", "-c", mount, "sh"]
    sink.down()
    wal = {"directory": str(disk / "log")}
    way = Way(servers, sink, straight=True, before=small_disk, wal=wal)
    requests = INSTANCE.steps(range(100))
    with Sender(way.endpoint) as sender:
        sender.send(requests)
    servers.until("a refusal", lambda: refused(way.kat))
    assert way.kat.books().healthy, "a full disk is no failure of the processor"
    sink.up()
    books = way.closes(requests)
    assert books.taken - books.repeated == len(span_ids(requests)), str(books)


def test_a_worker_that_vanishes_in_the_middle_of_a_step_is_missed(servers, sink):
    way = Way(servers, sink, assembler={"decision_wait": "1s"})
    sent = INSTANCE.steps(range(20))
    sent += [r.torn() if r.rank == 3 else r for r in INSTANCE.steps([20])]
    sent += [request for request in INSTANCE.steps(range(21, 30)) if request.rank != 3]
    with Sender(way.endpoint) as sender:
        sender.send(sent)
    books = way.closes(sent)
    assert books.taken - books.repeated == len(span_ids(sent))
    assert books.events["steps complete"] == 20
    assert books.events["steps waited"] == 10
    for number in range(30):
        root = sink.roots[INSTANCE.name, f"step {number}"]
        assert root.get(semconv.MISSING_RANKS) == ([3] if number >= 20 else None), number
        said = "judged incomplete (after decision_wait): ranks 3 did not close the step"
        assert root.get(semconv.COVERAGE) == (said if number >= 20 else None), number


def test_batches_that_come_twice_leave_once(servers, sink, way):
    requests = INSTANCE.steps(range(30))
    with Sender(way.endpoint) as sender:
        for request in requests:
            sender.send([request, request])
    books = way.closes(requests)
    assert books.repeated == len(span_ids(requests))
    assert max(sink.copies[span_id] for span_id in span_ids(requests)) == 1


def test_poison_among_good_batches_is_refused_and_stops_nothing(servers, sink, way):
    requests = INSTANCE.steps(range(20))
    poison = ExportTraceServiceRequest.FromString(requests[0].data)
    spans = poison.resource_spans[0].scope_spans[0].spans
    for span in spans:  # a time that the collector passes on and nobody can be at
        span.start_time_unix_nano = span.end_time_unix_nano = 2**64 - 1
    with Sender(way.endpoint) as sender:
        for number, request in enumerate(requests):
            sender.send([request])
            if number % 10 == 0:
                assert sender.refused_for_good(poison.SerializeToString(), INSTANCE.name) is None
                assert sender.refused_for_good(b"\xff" * 100, INSTANCE.name) is not None
    way.closes(requests)
    servers.until("the poison counted", lambda: way.kat.books().total("invalid") == 8 * len(spans))


_CLOCK = """
import os, sys, time
_file = os.environ["KAT_TEST_CLOCK"]
_time, _time_ns = time.time, time.time_ns
def _jump():
    # gRPC's Python half makes deadlines for its other half, whose clock does not jump here.
    if sys._getframe(2).f_globals.get("__name__", "").startswith("grpc"):
        return 0.0
    return float(open(_file).read() or 0)
time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + int(_jump() * 1e9)
"""


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
def test_a_clock_that_jumps_by_an_hour_loses_nothing(servers, sink, monkeypatch, tmp_path, jump_s):
    # No privilege is needed for this: only the processor's own reading of the clock jumps.
    (tmp_path / "sitecustomize.py").write_text(_CLOCK)
    clock = tmp_path / "clock"
    clock.write_text("0")
    monkeypatch.setenv("KAT_TEST_CLOCK", str(clock))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    way = Way(servers, sink)
    requests = INSTANCE.steps(range(40))
    with Sender(way.endpoint) as sender:
        sender.send(requests[:80])
        clock.write_text(str(jump_s))
        sender.send(requests[80:])
    books = way.closes(requests)
    assert books.events["steps complete"] == 40
