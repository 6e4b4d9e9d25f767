"""The control channel: who may ask, what all ranks are told, and what an operator can switch.

The last test is the whole of the two tiers: eight workers send digests, one of them is slow, all
eight are told the same steps, send them whole, and the full detector names the culprit.
"""

from __future__ import annotations

import socket
import ssl
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPException

import grpc
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from kat_otel import opamp
from kat_otel.capture import CAPABILITY, POLL, Orders, Poll, capture_nonce
from kat_otel.commands.capture import capture
from kat_otel.config import (
    AuthConfig,
    Config,
    ControlConfig,
    DigestsConfig,
    ExporterConfig,
    ReceiverConfig,
)
from kat_otel.digest import with_digests
from kat_otel.identity import nonce_of
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.opamp import AgentToServer, CustomMessage, ServerToAgent
from kat_otel.otlp import encode_traces
from kat_otel.processor.captures import Captures, FullError, StrangerError
from kat_otel.processor.control import ControlServer
from kat_otel.processor.server import Processor
from kat_otel.spans import SpanTable
from kat_otel.telemetry import Books
from kat_otel.verdict import Report
from tests.processor.receiving import Client, Pki

TOKEN = "s3cret"
TIMEOUT_S = 20


def uid_of(rank: int) -> bytes:
    """The process of a rank."""
    return uuid.UUID(int=rank + 1).bytes


@dataclass
class Worker:
    """What issue 5's worker does on the control channel, in a page: a reference client."""

    port: int
    instance: str
    rank: int
    token: str = TOKEN
    uid: bytes = b""
    caller: Client | None = None
    sent: int = field(default=0)

    def ask(self, step: int, recorded_from: int = 0) -> ServerToAgent:
        """Polls, and returns OpAMP's answer."""
        self.sent += 1
        poll = Poll(self.instance, self.rank, step, recorded_from)
        message = AgentToServer(
            self.uid or uid_of(self.rank),
            self.sent,
            (CAPABILITY,),
            CustomMessage(CAPABILITY, POLL, poll.encode()),
        )
        answer = post(self.port, message.encode(), self.token, caller=self.caller)
        return ServerToAgent.decode(answer)

    def poll(self, step: int, recorded_from: int = 0) -> Orders:
        """Polls, and returns the orders."""
        answer = self.ask(step, recorded_from)
        assert answer.error == 0, answer.error_message
        assert answer.custom_message is not None
        return Orders.decode(answer.custom_message.data)


def post(
    port: int,
    data: bytes,
    token: str = TOKEN,
    kind: str = "application/x-protobuf",
    caller: Client | None = None,
) -> bytes:
    """Sends one request."""
    base = f"https://localhost:{port}" if caller else f"http://127.0.0.1:{port}"
    context = caller.context() if caller else None
    request = urllib.request.Request(f"{base}/v1/opamp", data)
    request.add_header("content-type", kind)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:
        assert answer.headers["content-type"] == "application/x-protobuf"
        return answer.read()


def refusal(
    port: int, data: bytes, token: str = TOKEN, kind: str = "application/x-protobuf"
) -> int:
    """Sends one request that is refused, and returns the status."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(port, data, token, kind)
    refused.value.close()
    return refused.value.code


def config_of(**control: object) -> Config:
    """A control channel on a free port."""
    auth = AuthConfig(token=SecretStr(TOKEN))
    return Config(
        control=ControlConfig(endpoint="127.0.0.1:0", auth=auth, **control),
        digests=DigestsConfig(capture_steps=3, captures_per_hour=2),
    )


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def server(books: Books) -> Iterator[ControlServer]:
    control = ControlServer(config_of(), books)
    control.start()
    yield control
    control.stop()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@contextmanager
def serving(books: Books, **control: object) -> Iterator[ControlServer]:
    served = ControlServer(config_of(**control), books)
    served.start()
    try:
        yield served
    finally:
        served.stop()


def test_over_tls_a_worker_is_answered_and_plain_text_is_not(pki: Pki, books: Books) -> None:
    with serving(books, tls=pki.tls()) as served:
        assert Worker(served.port, "llama", 0, caller=pki.caller()).poll(1).mode == "full"
        with pytest.raises((urllib.error.URLError, ConnectionError, HTTPException)):
            Worker(served.port, "llama", 0).poll(1)
        with pytest.raises(urllib.error.HTTPError) as refused:
            Worker(served.port, "llama", 0, token="", caller=pki.caller()).poll(1)
        refused.value.close()
    assert refused.value.code == 401
    assert books.marked("polls answered") == 1


def test_mutual_tls_lets_in_workers_with_our_authoritys_certificate(pki: Pki, books: Books) -> None:
    with serving(books, tls=pki.tls(mutual=True)) as served:
        ours = Worker(served.port, "llama", 0, caller=pki.caller(pki.client))
        assert ours.poll(1).mode == "full"
        for who in (None, pki.stranger):
            with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
                Worker(served.port, "llama", 1, caller=pki.caller(who)).poll(1)
    assert books.marked("polls answered") == 1


def test_polls_cut_off_by_their_sender_are_no_news(server: ControlServer, caplog) -> None:
    head = (
        f"POST /v1/opamp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
        "content-type: application/x-protobuf\r\ncontent-length: 50\r\n"
        "expect: 100-continue\r\n\r\n"
    )
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as sender:
            sender.sendall(head.encode())
            assert b"100 Continue" in sender.recv(1_000)  # the application waits for the body
            sender.sendall(b"abc")
    assert Worker(server.port, "llama", 0).poll(1).captures == ()
    server.stop()
    assert caplog.text == ""


def test_all_ranks_are_told_the_same_steps_ahead_of_every_one(server: ControlServer) -> None:
    ranks = [Worker(server.port, "llama", rank) for rank in range(4)]
    for rank in ranks:
        assert rank.poll(100 + rank.rank).captures == ()
    assert server.request("llama", 101, "incident")
    told = [rank.poll(105).captures for rank in ranks[:3]]
    told.append(ranks[3].poll(10_000).captures)  # late: the answer is the same
    assert len(set(told)) == 1
    (capture,) = told[0]
    assert capture.reason == "incident"
    assert capture.next[0] > 103
    assert capture.next[1] - capture.next[0] == 2
    assert capture.recorded[1] == 101


def test_a_reason_is_served_once_and_the_hour_has_an_end(
    server: ControlServer, books: Books
) -> None:
    Worker(server.port, "llama", 0).poll(1)
    assert server.request("llama", 1, "a")
    assert not server.request("llama", 2, "a")
    assert server.request("llama", 3, "b")
    assert not server.request("llama", 4, "c")  # captures_per_hour is 2
    assert books.marked("captures requested") == 2


def test_an_instance_that_nobody_polls_for_cannot_be_asked(server: ControlServer) -> None:
    Worker(server.port, "other", 0).poll(1)
    assert not server.request("llama", 1, "a")


def test_a_worker_hears_of_its_own_instance_only(server: ControlServer) -> None:
    mine, other = Worker(server.port, "llama", 0), Worker(server.port, "qwen", 0, uid=b"q" * 16)
    mine.poll(1)
    other.poll(1)
    assert server.request("llama", 1, "a")
    assert len(mine.poll(2).captures) == 1
    assert other.poll(2).captures == ()
    answer = Worker(server.port, "llama", 0, uid=b"q" * 16).ask(2)  # it was qwen's
    assert (answer.error, answer.custom_message) == (opamp.BAD_REQUEST, None)


def test_a_second_process_cannot_pose_as_a_living_rank(server: ControlServer) -> None:
    Worker(server.port, "llama", 0).poll(1)
    answer = Worker(server.port, "llama", 0, uid=b"x" * 16).ask(1)
    assert answer.error == opamp.BAD_REQUEST
    assert "another process" in answer.error_message


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_token_there_is_no_answer(
    server: ControlServer, books: Books, token: str
) -> None:
    assert refusal(server.port, b"", token) == 401
    assert books.marked("polls unauthenticated") == 1


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"\xff\xff", "application/x-protobuf", 400),
        (b"", "application/json", 415),
        (bytes(70_000), "application/x-protobuf", 413),
    ],
)
def test_odd_requests_are_refused(server: ControlServer, data: bytes, kind: str, code: int) -> None:
    assert refusal(server.port, data, kind=kind) == code


def test_odd_questions_get_an_opamp_error(server: ControlServer) -> None:
    message = AgentToServer(uid_of(0), 1, (), CustomMessage(CAPABILITY, POLL, b"{}"))
    answer = ServerToAgent.decode(post(server.port, message.encode()))
    assert answer.error == opamp.BAD_REQUEST
    short = ServerToAgent.decode(post(server.port, AgentToServer(b"x").encode()))
    assert "16 bytes" in short.error_message


def test_a_plain_opamp_agent_learns_what_this_server_is_for(server: ControlServer) -> None:
    answer = ServerToAgent.decode(post(server.port, AgentToServer(uid_of(0), 1).encode()))
    assert answer.custom_capabilities == (CAPABILITY,)
    assert answer.custom_message is None


def test_an_operator_switches_everything_off_at_run_time(server: ControlServer) -> None:
    worker = Worker(server.port, "llama", 0)
    orders = worker.poll(1)
    assert (orders.mode, orders.sample_every, orders.poll_seconds) == ("full", None, 1.0)
    assert server.request("llama", 1, "a")
    server.reload(config_of(mode="digest", sample_every=50, poll_interval=0.2))
    orders = worker.poll(2)
    assert (orders.mode, orders.sample_every, orders.poll_seconds) == ("digest", 50, 0.2)
    assert orders.captures == ()
    assert not server.request("llama", 2, "b")
    server.reload(config_of(mode="off"))
    assert worker.poll(3).mode == "off"


def operator(server: ControlServer, *arguments: str, token: str = TOKEN) -> Result:
    """Runs ``kat capture``."""
    endpoint = f"http://127.0.0.1:{server.port}"
    return CliRunner(env={"KAT_CONTROL_TOKEN": token}).invoke(
        capture, [*arguments, "--endpoint", endpoint]
    )


def test_an_operator_asks_for_whole_steps_and_is_told_which(server: ControlServer) -> None:
    ranks = [Worker(server.port, "a", rank) for rank in range(2)]
    for worker in ranks:
        worker.poll(100, 50)

    answer = operator(server, "a")

    assert answer.exit_code == 0, answer.output
    told = {worker.poll(101, 50).captures for worker in ranks}
    assert len(told) == 1
    ((wanted,),) = told
    assert f"steps {wanted.next[0]} to {wanted.next[1]}" in answer.output
    assert wanted.id in answer.output
    assert wanted.recorded[1] == 100
    again = operator(server, "a")
    assert again.exit_code == 0, "an operator may ask twice, unlike an incident"


def test_an_operator_who_cannot_be_served_is_told_why(server: ControlServer) -> None:
    Worker(server.port, "a", 0).poll(5)

    unknown = operator(server, "b")
    assert unknown.exit_code == 1
    assert "heard of: a" in unknown.output
    wrong = operator(server, "a", token="guess")
    assert (wrong.exit_code, "token" in wrong.output) == (1, True)
    server.reload(config_of(mode="digest"))
    off = operator(server, "a")
    assert (off.exit_code, "control.mode is digest" in off.output) == (1, True)


def asked(captures: Captures, step: int, now: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The steps of a new request."""
    capture = captures.request("i", step, f"at {now}", now)
    assert capture is not None
    return capture.recorded, capture.next


def test_next_steps_are_as_far_ahead_as_a_poll_takes() -> None:
    captures = Captures(DigestsConfig(capture_steps=4), 1.0)
    for rank, rate in ((0, 100), (1, 10)):
        for second in range(3):
            captures.poll(uid_of(rank), Poll("i", rank, rate * second, 0), float(second))
    recorded, coming = asked(captures, 180, 2.0)
    assert coming[0] >= 200 + 2 * 100  # the fastest rank polls twice before it gets there
    assert coming[0] <= 200 + 2 * 100 + 10
    assert recorded == (177, 180)


def test_recorded_steps_are_those_that_every_rank_still_has() -> None:
    captures = Captures(DigestsConfig(capture_steps=4), 0.01)
    captures.poll(uid_of(0), Poll("i", 0, 100, 40), 0.0)
    captures.poll(uid_of(1), Poll("i", 1, 100, 98), 0.0)
    recorded, _ = asked(captures, 100, 0.0)
    assert recorded == (99, 100)
    first, last = asked(captures, 60, 0.05)[0]
    assert first > last  # nobody can send it any more


def test_requests_expire() -> None:
    captures = Captures(DigestsConfig(), 1.0)
    poll = Poll("i", 0, 100, 40)
    captures.poll(uid_of(0), poll, 0.0)
    asked(captures, 100, 0.0)
    assert len(captures.poll(uid_of(0), poll, 30.0)) == 1
    assert captures.poll(uid_of(0), poll, 3700.0) == ()


def test_a_restarted_worker_takes_its_rank_again() -> None:
    captures = Captures(DigestsConfig(), 1.0)
    captures.poll(uid_of(0), Poll("i", 0, 100, 0), 0.0)
    with pytest.raises(StrangerError):
        captures.poll(uid_of(9), Poll("i", 0, 0, 0), 1.0)
    assert captures.poll(uid_of(9), Poll("i", 0, 0, 0), 10.0) == ()


def test_instances_are_bounded_and_forgotten_when_silent() -> None:
    captures = Captures(DigestsConfig(), 1.0)
    for number in range(1024):
        captures.poll(uid_of(number), Poll(f"i{number}", 0, 0, 0), 0.0)
    with pytest.raises(FullError):
        captures.poll(uid_of(5000), Poll("one more", 0, 0, 0), 1.0)
    assert captures.poll(uid_of(5000), Poll("one more", 0, 0, 0), 700.0) == ()


def test_an_instance_is_judged_here_while_its_steps_come_here() -> None:
    captures = Captures(DigestsConfig(), 1.0)
    assert not captures.judges("i", 0.0)
    captures.judged("i", 0.0)
    assert captures.judges("i", 29.0)
    assert not captures.judges("other", 29.0)
    assert not captures.judges("i", 31.0), "it has moved to another processor, or is idle"


def test_an_instance_that_is_judged_here_finds_room_among_those_that_only_asked() -> None:
    captures = Captures(DigestsConfig(), 1.0)
    captures.judged("i0", 0.0)
    captures.judged("mine", 0.0)
    for number in range(1024):
        captures.poll(uid_of(number), Poll(f"i{number}", 0, 0, 0), 0.0)
    assert captures.poll(uid_of(5000), Poll("mine", 0, 0, 0), 1.0) == ()
    assert {"i0", "mine"} <= set(captures.instances)
    assert "i1" not in captures.instances
    assert len(captures.instances) == 1024


# --- the two tiers together ---------------------------------------------------------------


class Crew:
    """Eight workers in threads, stepping together as collectives make them; rank 5 turns slow."""

    RANKS, CULPRIT, SICK_FROM, STEPS = 8, 5, 14, 44

    def __init__(self, processor: Processor) -> None:
        program = decode_program(
            replace(LLAMA_70B, layers=6), workers(self.RANKS, instance="llama")
        )
        self.group, self.nonce = Group(program, 600), nonce_of("llama run 1")
        self.healthy, self.sick = program, slow_rank(program, self.CULPRIT, 20).program
        self.processor = processor
        self.barrier = threading.Barrier(self.RANKS, timeout=60)
        self.wanted: list[set[tuple[str, int]]] = [set() for _ in range(self.RANKS)]
        self.judged_here: list[set[bool]] = [set() for _ in range(self.STEPS)]
        self.failures: list[BaseException] = []

    def table(self, rank: int, step: int, nonce: int) -> SpanTable:
        """What a rank recorded of a step."""
        noisy, times = self.group.play(step, self.sick if step >= self.SICK_FROM else None)
        zero = 1_800_000_000_000_000_000 + step * 10**8
        return to_table(noisy, times, step=step, zero_unix_ns=zero, nonce=nonce, rows=[rank])

    def run(self) -> None:
        """All steps of all ranks."""
        threads = [threading.Thread(target=self._guarded, args=(r,)) for r in range(self.RANKS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _guarded(self, rank: int) -> None:
        try:
            self._rank(rank)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self.failures.append(error)
            self.barrier.abort()

    def _rank(self, rank: int) -> None:
        port = self.processor.control_port
        assert port is not None
        worker = Worker(port, "llama", rank)
        done: set[tuple[str, int]] = set()
        with grpc.insecure_channel(f"127.0.0.1:{self.processor.port}") as channel:
            export = channel.unary_unary(
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            )

            def send(table: SpanTable) -> None:
                for request in encode_traces(table):
                    export(request, timeout=TIMEOUT_S, wait_for_ready=True)

            captures = ()
            for step in range(self.STEPS):
                self.barrier.wait()
                now = self.table(rank, step, self.nonce)
                whole = any(c.wants(step) for c in captures)
                send(with_digests(now, keep=now.step >= 0 if whole else None))
                if whole:
                    self.wanted[rank].add(("next", step))
                orders = worker.poll(step, max(0, step - 20))
                self.judged_here[step].add(orders.judged_here)
                captures = orders.captures
                for capture in captures:
                    for old in range(capture.recorded[0], capture.recorded[1] + 1):
                        if old <= step and (capture.id, old) not in done:
                            done.add((capture.id, old))
                            self.wanted[rank].add(("recorded", old))
                            send(self.table(rank, old, capture_nonce(self.nonce, capture.id)))


def test_a_finding_on_digests_brings_whole_steps_of_all_ranks_and_the_culprit() -> None:
    whole: list[Report] = []
    digests: list[Report] = []

    def on_report(report: Report, table: SpanTable) -> None:
        (whole if table.on_gpu.any() else digests).append(report)

    config = Config(
        receiver=ReceiverConfig(endpoint="127.0.0.1:0"),
        exporter=ExporterConfig(endpoint=None),
        control=ControlConfig(
            endpoint="127.0.0.1:0", auth=AuthConfig(token=SecretStr(TOKEN)), poll_interval=0.05
        ),
        digests=DigestsConfig(capture_steps=3),
    )
    with Processor(config, on_report=on_report) as processor:
        crew = Crew(processor)
        crew.run()
    assert len({frozenset(wanted) for wanted in crew.wanted}) == 1  # the same on all ranks
    asked = crew.wanted[0]
    assert {kind for kind, _ in asked} == {"recorded", "next"}
    early = [r for r in digests if r.steps[0].step < crew.SICK_FROM]
    assert [r.incidents for r in early if r.incidents] == []
    first = next(r for r in digests if r.incidents)
    assert first.incidents[0].culprit.ranks == [crew.CULPRIT]
    assert sorted(r.steps[0].step for r in whole) == sorted(step for _, step in asked)
    sick = [r for r in whole if r.steps[0].step >= crew.SICK_FROM]
    assert len(sick) >= 3
    for report in sick:
        (incident,) = report.incidents
        assert incident.culprit.ranks == [crew.CULPRIT]
        assert incident.id == first.incidents[0].id  # one cause, one incident, over both tiers
        assert incident.kind == "slow_rank"
        assert report.source.ranks == list(range(8))
    assert crew.judged_here[-1] == {True}
    balance = processor.books.balance()
    assert balance.pending == 0, str(balance)
