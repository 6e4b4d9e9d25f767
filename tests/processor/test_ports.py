"""The ports for those who operate the processor: who may look, and what they are told."""

import json
import ssl
import urllib.error
from http.client import HTTPException
from types import SimpleNamespace
from urllib.request import Request, urlopen

import pytest

from kat_otel.config import AuthConfig, Config, DebugConfig, HealthConfig, PrometheusConfig
from kat_otel.errors import ConfigError
from kat_otel.processor.conditions import Condition
from kat_otel.processor.ports import Ports
from kat_otel.processor.recent import Recent
from kat_otel.telemetry import Telemetry
from tests.processor.receiving import Client, Pki

FREE = "127.0.0.1:0"


def every_port(**auth) -> Config:
    return Config(
        health=HealthConfig(endpoint=FREE, **auth),
        prometheus=PrometheusConfig(endpoint=FREE, **auth),
        debug=DebugConfig(endpoint=FREE, **auth),
    )


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def world():
    """Conditions that the test can change, and what asks for them."""

    world = SimpleNamespace(
        conditions=[Condition("judging", ok=True, detail="runs")],
        unready=[],
        telemetry=Telemetry(),
        recent=Recent(10),
    )
    opened = []

    def start(config: Config) -> Ports:
        ports = Ports(
            lambda: config,
            world.telemetry,
            world.recent,
            live=lambda: world.conditions,
            ready=lambda: [*world.conditions, *world.unready],
        )
        opened.append(ports)
        ports.start()
        return ports

    world.start = start
    yield world
    for ports in opened:
        ports.stop()


def get(port: int, path: str, token: str = "", caller: Client | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    base = f"https://localhost:{port}" if caller else f"http://127.0.0.1:{port}"
    context = caller.context() if caller else None
    try:
        with urlopen(Request(base + path, headers=headers), timeout=20, context=context) as ok:
            return ok.status, ok.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_only_the_ports_that_the_settings_name_are_open(world):
    ports = world.start(Config(health=HealthConfig(endpoint=FREE)))
    assert ports.port("health")
    assert (ports.port("prometheus"), ports.port("debug")) == (None, None)


def test_live_and_ready_are_two_questions(world):
    port = world.start(every_port()).port("health")
    assert [get(port, path)[0] for path in ("/", "/healthz", "/readyz", "/x")] == [
        *(200, 200, 200, 404)
    ]
    world.unready = [Condition("receiving", ok=False, detail="stopping")]
    assert get(port, "/healthz")[0] == 200
    status, text = get(port, "/readyz")
    said = json.loads(text)
    assert (status, said["ready"]) == (503, False)
    assert said["conditions"]["receiving"] == {"ok": False, "detail": "stopping"}
    world.conditions = [Condition("judging", ok=False, detail="died")]
    assert get(port, "/healthz")[0] == 503


def test_health_tells_the_books(world):
    world.telemetry.books.count("acknowledged", 44)
    world.telemetry.books.mark("export retries", 2)
    said = json.loads(get(world.start(every_port()).port("health"), "/healthz")[1])
    assert (said["spans"], said["pending"]) == ({"acknowledged": 44}, 44)
    assert said["events"] == {"export retries": 2}


EVERY = pytest.mark.parametrize(
    ("name", "path"),
    [("health", "/healthz"), ("prometheus", "/metrics"), ("debug", "/debug/steps.json")],
)


@EVERY
def test_a_port_with_a_certificate_speaks_tls_and_nothing_else(world, pki, name, path):
    port = world.start(every_port(tls=pki.tls())).port(name)
    assert get(port, path, caller=pki.caller())[0] == 200
    with pytest.raises((urllib.error.URLError, ConnectionError, HTTPException)):
        get(port, path)  # plain text


@EVERY
def test_mutual_tls_lets_in_who_shows_our_authoritys_certificate(world, pki, name, path):
    port = world.start(every_port(tls=pki.tls(mutual=True))).port(name)
    assert get(port, path, caller=pki.caller(pki.client))[0] == 200
    for who in (None, pki.stranger):
        with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
            get(port, path, caller=pki.caller(who))


@EVERY
def test_tokens_are_asked_for_behind_tls_too(world, pki, name, path):
    auth = AuthConfig(token="hunter2")
    port = world.start(every_port(tls=pki.tls(mutual=True), auth=auth)).port(name)
    answers = [get(port, path, token, pki.caller(pki.client))[0] for token in ("", "hunter2")]
    assert answers == [401, 200]


@EVERY
def test_a_port_with_tokens_lets_in_who_shows_one(world, name, path):
    port = world.start(every_port(auth=AuthConfig(token="hunter2"))).port(name)
    assert get(port, path)[0] == 401
    assert get(port, path, "wrong")[0] == 401
    status, text = get(port, path, "hunter2")
    assert status == 200
    assert "hunter2" not in text


def test_new_tokens_hold_at_once(world):
    ports = world.start(every_port(auth=AuthConfig(token="old")))
    ports.reload(every_port(auth=AuthConfig(token="new")))
    port = ports.port("prometheus")
    assert [get(port, "/metrics", token)[0] for token in ("old", "new")] == [401, 200]


def test_a_token_file_that_cannot_be_read_leaves_the_old_tokens(world, tmp_path):
    ports = world.start(every_port(auth=AuthConfig(token="old")))
    with pytest.raises(ConfigError, match=r"health\.auth\.token_file"):
        ports.reload(every_port(auth=AuthConfig(token_file=str(tmp_path / "none"))))
    assert get(ports.port("debug"), "/debug/steps.json", "old")[0] == 200


def test_a_taken_port_names_its_setting_and_closes_the_others(world):
    taken = world.start(Config(health=HealthConfig(endpoint=FREE))).port("health")
    config = Config(
        health=HealthConfig(endpoint=FREE),
        debug=DebugConfig(endpoint=f"127.0.0.1:{taken}"),
    )
    with pytest.raises(ConfigError, match=r"debug\.endpoint"):
        world.start(config)
