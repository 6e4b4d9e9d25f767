"""kat top, kat feedback and kat silence beside a real kat process that sees a slow rank."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from kat_otel import semconv
from kat_otel.fields import REST
from kat_otel.identity import nonce_of
from kat_otel.live import Live, LiveIncident, read_live
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.operators import read_labels
from kat_otel.otlp import encode_traces
from tests.processor.conftest import Backend

KAT = [sys.executable, "-m", "kat_otel"]
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TOKEN = "s3cret"
PATIENCE_S = 60


class Fleet:
    """Eight workers; rank 5 runs 20 % slower."""

    def __init__(self) -> None:
        program = decode_program(replace(LLAMA_70B, layers=6), workers(8, instance="llama"))
        self.group, self.nonce = Group(program, 600), nonce_of("llama run 1")
        self.sick = slow_rank(program, 5, 20).program
        self.step = 0

    def send(self, port: int, steps: int) -> None:
        """Sends the next steps of all ranks."""
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary(EXPORT)
            for _ in range(steps):
                noisy, times = self.group.play(self.step, self.sick)
                zero = 1_800_000_000_000_000_000 + self.step * 10**8
                table = to_table(noisy, times, step=self.step, zero_unix_ns=zero, nonce=self.nonce)
                for request in encode_traces(table):
                    export(request, timeout=PATIENCE_S, wait_for_ready=True)
                self.step += 1


class Processor:
    """A kat process of its own, its ports and its log."""

    def __init__(self, folder: Path, backend: int, ports: list[int]) -> None:
        self.receiver, self.control, self.debug, self.prometheus = ports
        self.file = folder / "kat.yaml"
        self.file.write_text(
            f"receiver: {{endpoint: '127.0.0.1:{self.receiver}', http: {{endpoint: null}}}}\n"
            f"control: {{endpoint: '127.0.0.1:{self.control}', auth: {{token: {TOKEN}}}}}\n"
            f"debug: {{endpoint: '127.0.0.1:{self.debug}', auth: {{token: {TOKEN}}}}}\n"
            f"prometheus: {{endpoint: '127.0.0.1:{self.prometheus}'}}\n"
            "health: {endpoint: null}\n"
            f"wal: {{directory: '{folder / 'wal'}'}}\n"
            f"exporter: {{endpoint: '127.0.0.1:{backend}'}}\n"
            "logs: {ongoing_interval: 0s}\nmetrics: {interval: 200ms}\n"
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when it receives."""
        command = [*KAT, "process", "--config", str(self.file)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = iter(self.process.stderr.readline, "")
        assert any("receiving OTLP on port" in line for line in said)

    def stop(self) -> None:
        """Ends it as a supervisor does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """At the end of a test that failed."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def kat(self, *arguments: str, code: int = 0, token: str = TOKEN) -> str:
        """Runs a command against it; returns what it printed."""
        port = self.debug if arguments[0] == "top" else self.control
        environment = os.environ | {"KAT_CONTROL_TOKEN": token, "KAT_DEBUG_TOKEN": token}
        done = subprocess.run(
            [*KAT, *arguments, "--endpoint", f"http://127.0.0.1:{port}"],
            capture_output=True,
            check=False,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def live(self) -> Live:
        """What goes on now."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.debug}/debug/live.json")
        request.add_header("authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return read_live(answer.read())

    def until(self, holds: Callable[[Live], bool]) -> Live:
        """Returns the first look that is as wanted."""
        give_up = time.monotonic() + PATIENCE_S
        while not holds(found := self.live()):
            assert time.monotonic() < give_up, found
            time.sleep(0.05)
        return found

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        url = f"http://127.0.0.1:{self.prometheus}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.read().decode()


@pytest.fixture
def backend() -> Iterator[Backend]:
    found = Backend()
    yield found
    found.server.stop(0)


@pytest.fixture
def processor(tmp_path, backend) -> Iterator[Processor]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    found = Processor(tmp_path, backend.port, ports)
    found.start()
    yield found
    found.kill()


def events(backend: Backend, name: str) -> list[dict[str, object]]:
    """The attributes of all log events of a name, in their order; the lock is the caller's."""
    return [
        {pair.key: _value(pair.value) for pair in record.attributes}
        | {"severity": record.severity_text}
        for request in backend.logs
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if record.event_name == name
    ]


def _value(value) -> object:
    return getattr(value, value.WhichOneof("value"))


def impact_labels(backend: Backend) -> set[tuple[bool, bool]]:
    """Page and silenced of the last points of incidents' impact; the lock is the caller's."""
    for request in reversed(backend.metrics):
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == semconv.METRIC_IMPACT:
                said = [
                    {pair.key: _value(pair.value) for pair in point.attributes}
                    for point in metric.gauge.data_points
                ]
                return {(bool(s[semconv.PAGE]), bool(s[semconv.SILENCED])) for s in said}
    return set()


def errors_of(backend: Backend, step: int) -> int:
    """How many spans of a step have the status error."""
    spans = backend.spans
    rows = [row for row in range(len(spans)) if spans.step[row] == step]
    rest = [Span.FromString(spans.attributes.get(row, {}).get(REST, b"")) for row in rows]
    return sum(span.status.code == Status.STATUS_CODE_ERROR for span in rest)


@pytest.mark.slow
def test_an_incident_is_seen_called_false_silenced_and_pages_again(
    processor: Processor, backend: Backend, tmp_path: Path
) -> None:
    fleet = Fleet()
    fleet.send(processor.receiver, 12)
    live = processor.until(lambda live: any(one.page for one in live.incidents))
    (incident,) = live.incidents
    assert incident.report.culprit.ranks == [5]
    (instance,) = live.instances
    assert (instance.instance, instance.ranks, instance.world_size) == ("llama", 8, 8)
    assert instance.worst_ranks[0].rank == 5

    seen = processor.kat("top")  # piped: one plain snapshot
    assert " PAGE  rank 5 makes ranks 0-4 and 6-7 wait" in seen
    assert "\x1b" not in seen
    assert read_live(processor.kat("top", "--format", "json", "--once").encode()).incidents

    refused(processor, incident.id)
    called_false(processor, backend, incident)
    silence_id = silenced(processor, backend, fleet, incident.id)

    # All of it survives a restart.
    processor.stop()
    processor.start()
    after_a_restart(processor, fleet, incident.id, silence_id)
    labels = tmp_path / "labels.jsonl"
    assert "wrote 1 label" in processor.kat("feedback", "export", str(labels))
    (label,) = read_labels(labels.read_bytes().splitlines())
    assert (label.verdict, label.note, label.report.id) == ("false", "maintenance", incident.id)
    assert label.report.culprit.ranks == [5]

    assert "ended" in processor.kat("silence", "end", silence_id)
    assert "no silence" in processor.kat("silence", "end", silence_id, code=2)
    fleet.send(processor.receiver, 2)
    processor.until(lambda live: any(one.page for one in live.incidents))
    processor.stop()


def refused(processor: Processor, known: str) -> None:
    """A wrong id, a wrong token, a verdict that is none: each is told what to do."""
    near = known[:-1] + ("0" if known[-1] != "0" else "1")
    assert f"did you mean {known}" in processor.kat("feedback", near, "--false", code=2)
    wrong = processor.kat("feedback", known, "--true", code=2, token="guess")
    assert "KAT_CONTROL_TOKEN" in wrong
    assert "KAT_DEBUG_TOKEN" in processor.kat("top", code=2, token="guess")
    assert "--true or --false" in processor.kat("feedback", known, code=2)
    assert "name an incident" in processor.kat("silence", "--for", "2h", code=2)


def called_false(processor: Processor, backend: Backend, incident: LiveIncident) -> None:
    """The verdict is told, counted and sent, and a silence is offered."""
    said = processor.kat(
        "feedback", incident.id[:6], "--false", "--note", "maintenance", "--by", "ann"
    )
    assert f"incident {incident.id}" in said
    assert f"kat silence {incident.id} --for 2h" in said  # a false verdict offers a silence
    backend.wait_for(lambda: events(backend, semconv.EVENT_FEEDBACK))
    (told,) = events(backend, semconv.EVENT_FEEDBACK)
    assert (told[semconv.INCIDENT_ID], told[semconv.VERDICT]) == (incident.id, "false")
    assert (told[semconv.NOTE], told[semconv.BY]) == ("maintenance", "ann")
    counted = f'component="{incident.component}",kind="{incident.kind}",verdict="false"}} 1.0'
    assert f"kat_processor_feedback_total{{{counted}" in processor.metrics()


def silenced(processor: Processor, backend: Backend, fleet: Fleet, known: str) -> str:
    """Followed and exported as ever, but no page: no error status, and every label says so."""
    made = processor.kat("silence", "--instance", "llama", "--rank", "5", "--reason", "ticket 4711")
    assert "1 live incident now" in made
    silence_id = made.rpartition(" end ")[2].strip(") \n")
    quiet = processor.until(lambda live: not any(one.page for one in live.incidents))
    assert quiet.incidents[0].feedback == "false"
    assert " mute " in processor.kat("top")

    assert errors_of(backend, 11) > 0
    first = fleet.step
    fleet.send(processor.receiver, 3)
    backend.wait_for(
        lambda: any(e[semconv.SILENCED] for e in events(backend, semconv.EVENT_INCIDENT))
    )
    last = events(backend, semconv.EVENT_INCIDENT)[-1]
    assert (last[semconv.INCIDENT_ID], last[semconv.PAGE], last["severity"]) == (
        *(known, False, "INFO"),
    )
    assert (last[semconv.SILENCE_ID], last[semconv.SILENCE_REASON]) == (silence_id, "ticket 4711")
    backend.wait_for(lambda: impact_labels(backend) == {(False, True)})
    backend.wait_for(lambda: bool((backend.spans_unlocked().step == first + 2).any()))
    assert errors_of(backend, first + 2) == 0
    assert 'kat_processor_active_incidents{page="true"} 0.0' in processor.metrics()
    assert "kat_processor_silenced_incidents 1.0" in processor.metrics()
    return silence_id


def after_a_restart(processor: Processor, fleet: Fleet, known: str, silence_id: str) -> None:
    """The silence is in force, and what was said is known."""
    listed = processor.kat("silence", "list")
    assert silence_id in listed
    assert "instance llama, rank 5" in listed
    fleet.send(processor.receiver, 2)
    again = processor.until(lambda live: bool(live.incidents)).incidents[0]
    assert (again.id, again.page, again.feedback) == (known, False, "false")
    assert again.silence is not None


@pytest.mark.slow
def test_kat_top_waits_for_a_processor_that_is_away_and_ends_with_an_interrupt(
    processor: Processor,
) -> None:
    environment = os.environ | {"KAT_DEBUG_TOKEN": TOKEN, "TERM": "xterm", "COLUMNS": "80"}
    endpoint = f"http://127.0.0.1:{processor.debug}"
    child, terminal = pty.fork()
    if child == 0:
        os.execve(
            sys.executable,
            [*KAT, "top", "--endpoint", endpoint, "--interval", "0.2"],
            environment | {"LINES": "24"},
        )
    shown = b""

    def until(wanted: bytes) -> None:
        nonlocal shown
        give_up = time.monotonic() + PATIENCE_S
        while wanted not in shown:
            assert time.monotonic() < give_up, shown[-2_000:]
            shown += os.read(terminal, 65_536)
        shown = shown[shown.rindex(wanted) + len(wanted) :]

    until("● well".encode())
    processor.stop()
    until("○ away".encode())
    until(b"does not answer")
    processor.start()
    until("● well".encode())
    os.kill(child, signal.SIGINT)
    rest = b""
    try:
        while part := os.read(terminal, 65_536):
            rest += part
    except OSError:  # how a terminal says that nobody is left on the other side
        pass
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"\x1b[?1049l" in rest  # the terminal is as it was before
    assert b"Traceback" not in rest
    processor.stop()


def test_nobody_at_the_other_end_is_said_with_what_to_look_at(free_port: int) -> None:
    for command, setting in (
        (["top"], "debug.endpoint"),
        (["feedback", "3fa90c", "--true"], "control.endpoint"),
        (["silence", "list"], "control.endpoint"),
    ):
        done = subprocess.run(
            [*KAT, *command, "--endpoint", f"http://127.0.0.1:{free_port}"],
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 2
        assert f"is {setting} of kat process this one?" in done.stderr
        assert "Traceback" not in done.stderr
        assert "object at 0x" not in done.stderr


@pytest.mark.slow
def test_a_stream_of_lines_says_once_that_it_waits(processor: Processor) -> None:
    command = [*KAT, "top", "--format", "json", "--interval", "0.2"]
    watching = subprocess.Popen(
        [*command, "--endpoint", f"http://127.0.0.1:{processor.debug}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"KAT_DEBUG_TOKEN": TOKEN},
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    assert json.loads(watching.stdout.readline())["schema"] == "kat.live/v1"
    processor.stop()
    assert "waiting for it" in watching.stderr.readline()
    processor.start()
    while not watching.stdout.readline():
        pass
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=PATIENCE_S)
    assert (watching.returncode, said) == (0, "")
    processor.stop()
