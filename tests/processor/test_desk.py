"""What operators say over the control port: who may, what is taken, and what is refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import SecretStr

from kat_otel.commands import kat
from kat_otel.config import AuthConfig, Config, ControlConfig
from kat_otel.processor import shared_folder
from kat_otel.processor.control import ControlServer
from kat_otel.processor.desk import Desk
from kat_otel.processor.known_incidents import KnownIncidents
from kat_otel.telemetry import Books
from tests.report.live_samples import incident

TOKEN = "s3cret"
INCIDENT = incident()


class World:
    """A control port with a desk behind it, and what it has sent."""

    def __init__(self, folder) -> None:
        self.known, self.books = KnownIncidents(), Books()
        self.known.update("llama", INCIDENT)
        self.sent: list[bytes] = []
        self.room = True
        self.desk = Desk(folder, self.known, self.books, self.send)
        auth = AuthConfig(token=SecretStr(TOKEN))
        config = Config(control=ControlConfig(endpoint="127.0.0.1:0", auth=auth))
        self.server = ControlServer(config, self.books, desk=self.desk)
        self.server.start()

    def send(self, data: bytes) -> bool:
        self.sent.append(data)
        return self.room

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str = TOKEN,
        kind: str = "application/json",
    ) -> tuple[int, Any]:
        """Returns the status and what is answered."""
        url = f"http://127.0.0.1:{self.server.port}{path}"
        request = urllib.request.Request(url, body, method=method)
        request.add_header("content-type", kind)
        if token:
            request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def kat(self, *arguments: str) -> Result:
        """Runs a command against the port."""
        endpoint = f"http://127.0.0.1:{self.server.port}"
        runner = CliRunner(env={"KAT_CONTROL_TOKEN": TOKEN})
        return runner.invoke(kat, [*arguments, "--endpoint", endpoint])


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    found = World(tmp_path / "state")
    yield found
    found.server.stop()


SAID = json.dumps({"incident": INCIDENT.id, "verdict": "false"}).encode()
WANTED = json.dumps({"incident": INCIDENT.id, "seconds": 60}).encode()
EVERY = pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/feedback", SAID),
        ("GET", "/v1/feedback", None),
        ("POST", "/v1/silences", WANTED),
        ("GET", "/v1/silences", None),
        ("DELETE", "/v1/silences/1f2e3d4c", None),
    ],
)


@EVERY
def test_without_the_token_nothing_is_taken_or_told(world, method, path, body):
    for token in ("", "wrong"):
        assert world.call(method, path, body, token=token) == (401, b"")
    assert world.books.marked("operators unauthenticated") == 2
    assert world.desk.feedback.told() == ()
    assert world.desk.silences.active() == []


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/silences"])
def test_a_page_of_another_site_cannot_make_a_browser_send_it(world, path):
    assert world.call("POST", path, SAID, kind="text/plain")[0] == 415


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/v1/feedback", b"{", "not understood"),
        ("/v1/feedback", b"\xff", "not understood"),
        ("/v1/feedback", b'{"incident": "3fa9", "verdict": "maybe"}', "$.verdict"),
        ("/v1/feedback", b'{"incident": "", "verdict": "true"}', "$.incident"),
        ("/v1/silences", b'{"incident": "3fa9", "seconds": 0}', "$.seconds"),
        ("/v1/silences", b'{"incident": "3fa9", "seconds": 2592001}', "$.seconds"),
        ("/v1/silences", b'{"kind": "sloth", "seconds": 1}', "$.kind"),
        ("/v1/silences", b'{"kindd": "stall", "seconds": 1}', "kindd"),
    ],
)
def test_what_is_not_understood_names_the_field(world, path, body, why):
    status, answer = world.call("POST", path, body)
    assert status == 400
    assert why in json.loads(answer)["error"]


def test_a_body_beyond_all_bounds_is_refused(world):
    body = json.dumps({"incident": "a" * 100_000, "verdict": "true"}).encode()
    assert world.call("POST", "/v1/feedback", body)[0] == 413


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.sampled_from(["incident", "verdict", "note", "by", "instance", "seconds", "ranks"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_whatever_is_sent_gets_an_answer(world, body):
    for path in ("/v1/feedback", "/v1/silences"):
        status, answer = world.call("POST", path, json.dumps(body).encode())
        assert status in {200, 400, 404, 409}
        assert isinstance(json.loads(answer), dict)


def test_the_last_verdict_holds_and_each_is_counted_and_sent(world):
    for verdict in ("true", "false"):
        assert world.kat("feedback", "3fa9", f"--{verdict}", "--by", "ann").exit_code == 0
    assert world.desk.feedback.verdicts() == {INCIDENT.id: "false"}
    assert world.desk.feedback.counts() == {
        ("true", "late_launch", "host_cpu"): 1,
        ("false", "late_launch", "host_cpu"): 1,
    }
    (record,) = (
        ExportLogsServiceRequest.FromString(world.sent[1])
        .resource_logs[0]
        .scope_logs[0]
        .log_records
    )
    assert record.event_name == "kat.feedback"
    assert "an operator calls the incident false: rank 5" in record.body.string_value


def test_an_event_that_finds_no_room_is_counted_and_the_verdict_kept(world):
    world.room = False
    assert world.kat("feedback", "3fa9", "--true").exit_code == 0
    assert world.books.marked("feedback events not sent") == 1
    assert world.desk.feedback.verdicts() == {INCIDENT.id: "true"}


def test_a_disk_that_is_full_is_told_to_whom_it_concerns(world, monkeypatch):
    def full(file: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_folder, "_write_all", full)
    status, answer = world.call("POST", "/v1/silences", WANTED)
    assert (status, "No space left" in json.loads(answer)["error"]) == (507, True)
    assert world.desk.silences.active() == []


def test_a_false_verdict_may_silence_at_once(world):
    done = world.kat("feedback", "3fa9", "--false", "--silence", "30m", "--note", "ticket 4711")
    assert done.exit_code == 0, done.output
    (silence,) = world.desk.silences.active()
    assert (silence.incident, silence.reason) == (INCIDENT.id, "ticket 4711")
    assert silence.end_unix_nano - silence.begin_unix_nano == 1_800 * 10**9
    again = world.kat("feedback", "3fa9", "--false")
    assert "to keep it quiet" not in again.output  # it is quiet already


def test_a_silence_tells_what_it_hides_now(world):
    wide = world.kat("silence", "--component", "host_cpu", "--for", "1h30m")
    assert "silenced component host_cpu until" in wide.output
    assert "1 live incident now" in wide.output
    assert "0 live incidents now" in world.kat("silence", "--rank", "3").output
    listed = json.loads(world.kat("silence", "list", "--format", "json").stdout)
    assert [one["component"] for one in listed["silences"]] == ["host_cpu", None]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["silence", "3fa9", "--for", "soon"], "write it as 30m, 2h or 1d"),
        (["silence", "3fa9", "--for", "31d"], "at most 30d"),
        (["silence", "--for", "2h"], "name an incident"),
        (["silence", "--kind", "sloth"], "sloth"),
        (["feedback", "3fa9"], "--true or --false"),
    ],
)
def test_a_command_that_is_wrong_says_how_it_is_right(world, arguments, why):
    done = world.kat(*arguments)
    assert done.exit_code == 2
    assert why in done.output
    assert world.desk.silences.active() == []
