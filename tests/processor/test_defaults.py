"""What ``kat process`` adds to the settings, and what it leaves alone."""

import socket

import pytest

from kat_otel.config import Config
from kat_otel.processor import defaults
from kat_otel.processor.config_file import parse_config
from kat_otel.processor.defaults import CONVENTIONAL_PORTS, shut, taken_ports, with_defaults

HOME = {"XDG_STATE_HOME": "/state"}


def settings(text: str) -> Config:
    return parse_config(text, "kat.yaml", {})


def test_without_settings_it_listens_where_the_collectors_conventions_say():
    config, filled = with_defaults(Config(), HOME)
    assert config.receiver.http.endpoint == "127.0.0.1:4328"
    assert config.control.endpoint == "127.0.0.1:4329"
    assert config.health.endpoint == "127.0.0.1:13133"
    assert config.prometheus.endpoint == "127.0.0.1:8888"
    assert config.debug.endpoint == "127.0.0.1:55679"
    assert config.wal.directory == "/state/kat-otel/4327"
    assert filled == {*CONVENTIONAL_PORTS, "wal.directory"}


def test_what_the_file_says_holds_null_too():
    config, filled = with_defaults(
        settings(
            "debug: {endpoint: null}\nwal: {directory: null}\nhealth: {endpoint: 'h:1', "
            "insecure: true}"
        ),
        HOME,
    )
    assert (config.debug.endpoint, config.wal.directory) == (None, None)
    assert config.health.endpoint == "h:1"
    assert filled == {"receiver.http.endpoint", "control.endpoint", "prometheus.endpoint"}


def test_a_section_that_says_something_else_gets_its_port_all_the_same():
    config, _ = with_defaults(settings("debug: {steps: 7}\nwal: {max_size_mib: 64}"), HOME)
    assert (config.debug.endpoint, config.debug.steps) == ("127.0.0.1:55679", 7)
    assert (config.wal.directory, config.wal.max_size_mib) == ("/state/kat-otel/4327", 64)


def test_on_port_0_nothing_is_filled_in():
    config = settings("receiver: {endpoint: '127.0.0.1:0'}")
    assert with_defaults(config, HOME) == (config, frozenset())


def test_the_log_lies_below_the_home_unless_xdg_says_otherwise(monkeypatch):
    monkeypatch.setenv("HOME", "/home/kat")
    assert with_defaults(Config(), {})[0].wal.directory == "/home/kat/.local/state/kat-otel/4327"


def test_no_door_is_opened_beside_one_that_was_locked():
    text = "receiver: {auth: {token: abc}, tls: {cert_file: c, key_file: k}}"
    config, _ = with_defaults(settings(text), HOME)
    for section in (config.receiver.http, config.control):
        assert section.auth == config.receiver.auth
        assert section.tls == config.receiver.tls


@pytest.fixture
def free_ports(monkeypatch, free_port):
    """The conventional ports are busy on a machine with a collector; the tests use others."""
    moved = {}
    probes = []
    for key in CONVENTIONAL_PORTS:
        probe = socket.create_server(("127.0.0.1", 0))
        probes.append(probe)
        moved[key] = f"127.0.0.1:{probe.getsockname()[1]}"
    for probe in probes:
        probe.close()
    monkeypatch.setattr(defaults, "CONVENTIONAL_PORTS", moved)
    return moved


def test_a_filled_in_port_that_is_taken_stays_shut_and_the_others_open(free_ports):
    config, filled = with_defaults(Config(), HOME)
    host, _, port = free_ports["prometheus.endpoint"].rpartition(":")
    with socket.create_server((host, int(port))):
        taken = taken_ports(config, filled)
    assert list(taken) == ["prometheus.endpoint"]
    assert "another process listens on" in taken["prometheus.endpoint"]
    left = shut(config, taken)
    assert left.prometheus.endpoint is None
    assert left.health.endpoint == free_ports["health.endpoint"]


def test_a_filled_in_port_gives_way_to_a_setting(free_ports):
    own = free_ports["debug.endpoint"]
    config, filled = with_defaults(settings(f"receiver: {{endpoint: '{own}'}}"), HOME)
    assert taken_ports(config, filled) == {"debug.endpoint": f"{own} is used by another setting"}


def test_a_port_that_the_file_names_is_not_looked_at(free_ports):
    taken = free_ports["debug.endpoint"]
    config, filled = with_defaults(settings(f"debug: {{endpoint: '{taken}'}}"), HOME)
    host, _, port = taken.rpartition(":")
    with socket.create_server((host, int(port))):
        assert taken_ports(config, filled) == {}
