"""Polls against a real control port, and against servers that are down, picky or hostile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from kat_otel.capture import CAPABILITY, ORDERS, Orders, Poll
from kat_otel.config import AuthConfig, Config, ControlConfig, DigestsConfig
from kat_otel.instrumentation.sending.control import Control
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.sampling import Sampling
from kat_otel.instrumentation.settings import Settings
from kat_otel.opamp import AgentToServer, CustomMessage, ServerToAgent
from kat_otel.processor.control import ControlServer
from kat_otel.telemetry import Books
from tests.instrumentation.simulated import Collector, Reply, Request
from tests.processor.receiving import Pki

TOKEN = "s3cret"
AT = Poll("llama", 3, 120, 60)


class Watched(Control):
    """Tells the test when orders have come."""

    def __init__(self, settings: Settings, counts: Counts, **times: float) -> None:
        super().__init__(settings, counts, first_wait=0.01, **times)
        self.came = threading.Condition()
        self.on_orders = self._tell

    def _tell(self) -> None:
        with self.came:
            self.came.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 15.0) -> None:
        until = time.monotonic() + timeout
        with self.came:
            while not condition():
                assert time.monotonic() < until, "waited in vain"
                self.came.wait(0.02)


@contextmanager
def polling(
    counts: Counts, url: str, token: Path | None = None, ca: str = "", **times: float
) -> Iterator[Watched]:
    settings = Settings(
        control_endpoint=url,
        control_token_file=str(token) if token else "",
        control_ca_file=ca,
    )
    control = Watched(settings, counts, **times)
    control.start()
    control.at(AT)
    try:
        yield control
    finally:
        control.close()


def config_of(**control: object) -> Config:
    auth = AuthConfig(token=SecretStr(TOKEN))
    said = {"endpoint": "127.0.0.1:0", "auth": auth, "poll_interval": 0.05} | control
    return Config(control=ControlConfig(**said), digests=DigestsConfig(capture_steps=3))


@contextmanager
def serving(**control: object) -> Iterator[ControlServer]:
    server = ControlServer(config_of(**control), Books())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nan older one\n")
    return file


def url_of(server: ControlServer, scheme: str = "http") -> str:
    return f"{scheme}://localhost:{server.port}/v1/opamp"


def test_a_kill_switch_and_captures_reach_the_worker(counts: Counts, token: Path) -> None:
    with serving(sample_every=7) as server, polling(counts, url_of(server), token) as control:
        control.wait_for(lambda: control.orders is not None)
        assert control.orders == Orders("full", 7, 0.05, judged_here=False)
        assert server.request("llama", 120, "incident")
        control.wait_for(lambda: bool(control.orders and control.orders.captures))
        (capture,) = control.orders.captures
        assert capture.recorded == (118, 120)
        server.reload(config_of(mode="off"))
        control.wait_for(lambda: bool(control.orders and control.orders.mode == "off"))
    assert counts["polls:answered"] >= 3


def test_an_answer_alone_changes_nothing_of_what_a_worker_samples(
    counts: Counts, token: Path
) -> None:
    with serving() as server, polling(counts, url_of(server), token) as control:
        control.wait_for(lambda: control.orders is not None)
        sampling = Sampling(Settings(sample_every=3))
        sampling.obey(control.orders)
        assert [step for step in range(7) if sampling.whole(step)] == [0, 3, 6]
        server.reload(config_of(sample_every=0))
        control.wait_for(lambda: bool(control.orders and control.orders.sample_every == 0))
        sampling.obey(control.orders)
        assert not any(map(sampling.whole, range(7)))


def test_a_renewed_token_is_read_again(counts: Counts, token: Path, caplog) -> None:
    token.write_text("wrong\n")
    with serving() as server, polling(counts, url_of(server), token) as control:
        control.wait_for(lambda: counts["polls:http_401"] >= 2)
        assert control.orders is None
        token.write_text(f"{TOKEN}\n")
        control.wait_for(lambda: control.orders is not None)
    assert "wrong" not in caplog.text
    assert caplog.text.count("http_401") == 1  # said once a minute


@pytest.mark.parametrize("content", [None, "", "\n", "tok\x00en\n", "tökén\n"])
def test_no_token_is_no_poll(
    counts: Counts, tmp_path: Path, content: str | None, collector: Collector
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with polling(counts, collector.url, file) as control:
        control.wait_for(lambda: counts["polls:token"] >= 2)
        assert control.orders is None
    assert collector.requests == []


def test_over_tls_with_the_authority_that_is_named(
    counts: Counts, token: Path, tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    with serving(tls=pki.tls()) as server:
        url = url_of(server, "https")
        with polling(counts, url, token) as control:
            control.wait_for(lambda: counts["polls:unreachable"] >= 2)
            assert control.orders is None
        with polling(counts, url, token, str(pki.ca[0])) as control:
            control.wait_for(lambda: control.orders is not None)


def answer_with(
    data: bytes,
    *,
    capability: str = CAPABILITY,
    kind: str = ORDERS,
    uid: bytes = b"",
    error: int = 0,
) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        asked = AgentToServer.decode(request.body)
        message = CustomMessage(capability, kind, data)
        answer = ServerToAgent(
            uid or asked.instance_uid, error, "no", custom_message=None if error else message
        )
        return Reply(200, {}, answer.encode())

    return reply


GOOD = Orders("digest", 5, 0.02)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda _: Reply(200, {}, b"\xff\xff\xff"), "malformed"),
        (lambda _: Reply(200, {}, b""), "malformed"),
        (lambda _: Reply(200, {}, bytes(70_000)), "unreachable"),
        (answer_with(b"{}"), "malformed"),
        (answer_with(b"[" * 50_000), "malformed"),
        (answer_with(GOOD.encode().replace(b'"digest"', b'"loud"')), "malformed"),
        (answer_with(GOOD.encode(), kind="other"), "malformed"),
        (answer_with(GOOD.encode(), capability="other"), "malformed"),
        (answer_with(GOOD.encode(), uid=b"x" * 16), "malformed"),
        (answer_with(b"", error=1), "refused"),
        (lambda _: Reply(302, {"location": "http://127.0.0.1:1/"}, b""), "http_302"),
        (lambda _: Reply(500, {}, b"\x00\xff oh"), "http_500"),
    ],
)
def test_an_answer_that_makes_no_sense_changes_nothing(
    counts: Counts, collector: Collector, reply, reason: str
) -> None:
    collector.reply = answer_with(GOOD.encode())
    with polling(counts, collector.url) as control:
        control.wait_for(lambda: control.orders is not None)
        collector.reply = reply
        control.wait_for(lambda: counts[f"polls:{reason}"] >= 2)
        assert control.orders == GOOD  # the last that were understood still hold
        collector.reply = answer_with(Orders("full", 1, 0.02).encode())
        control.wait_for(lambda: control.orders == Orders("full", 1, 0.02))


def test_orders_hold_for_a_while_when_the_server_is_gone_and_then_no_longer(
    counts: Counts, free_port: int
) -> None:
    collector = Collector(free_port)
    collector.reply = answer_with(GOOD.encode())
    with polling(counts, collector.url, orders_hold=0.5) as control:
        control.wait_for(lambda: control.orders is not None)
        collector.close()
        control.wait_for(lambda: counts["polls:unreachable"] >= 1)
        control.wait_for(lambda: control.orders is None)


def test_a_server_cannot_make_workers_poll_without_a_pause(
    counts: Counts, collector: Collector
) -> None:
    collector.reply = answer_with(Orders("full", 0, 0.0).encode())
    with polling(counts, collector.url) as control:
        control.wait_for(lambda: counts["polls:answered"] >= 1)
        begin, before = time.monotonic(), counts["polls:answered"]
        control.wait_for(lambda: counts["polls:answered"] >= before + 10)
        assert time.monotonic() - begin >= 0.1


def test_nobody_is_asked_before_it_is_known_for_whom(counts: Counts, collector: Collector) -> None:
    control = Control(Settings(control_endpoint=collector.url), counts)
    control.start()
    control.close()
    assert collector.requests == []


def test_what_a_poll_says(counts: Counts, collector: Collector) -> None:
    collector.reply = answer_with(GOOD.encode())
    with polling(counts, collector.url):
        collector.wait_for(lambda requests: len(requests) >= 2)
    first, second = (AgentToServer.decode(r.body) for r in collector.requests[:2])
    assert first.instance_uid == second.instance_uid
    assert len(first.instance_uid) == 16
    assert (first.sequence_num, second.sequence_num) == (1, 2)
    assert first.custom_capabilities == (CAPABILITY,)
    assert first.custom_message is not None
    assert Poll.decode(first.custom_message.data) == AT


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://10.0.0.1:4329/v1/opamp", True),
        ("https://10.0.0.1:4329/v1/opamp", False),
        ("http://127.0.0.1:4329/v1/opamp", False),
        ("http://[::1]:4329/v1/opamp", False),
    ],
)
def test_a_token_in_plain_text_is_warned_of(
    counts: Counts, token: Path, caplog, url: str, warned: bool
) -> None:
    Control(Settings(control_endpoint=url, control_token_file=str(token)), counts)
    assert ("plain text" in caplog.text) == warned
