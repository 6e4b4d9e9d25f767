"""``kat doctor``: every finding is true, and what is wrong comes with its remedy."""

import os
import socket
import subprocess
import sys

import grpc
import pytest
from starlette.responses import PlainTextResponse

from kat_otel.config import (
    Config,
    ExporterConfig,
    PrometheusConfig,
    ServerTlsConfig,
    StateConfig,
    WalConfig,
)
from kat_otel.finding import Finding
from kat_otel.processor import doctor_machine
from kat_otel.processor.config_file import load_config
from kat_otel.processor.doctor import examine
from kat_otel.processor.doctor_disk import check_log, check_states
from kat_otel.processor.doctor_machine import check_machine
from kat_otel.processor.doctor_network import check_endpoint, check_ports
from kat_otel.processor.doctor_running import find_running
from kat_otel.processor.http import HttpServer
from kat_otel.processor.server import Processor
from kat_otel.processor.wal import WriteAheadLog
from tests.processor.receiving import Pki


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def by_topic(findings) -> dict[str, Finding]:
    return {finding.topic: finding for finding in findings}


def test_this_machine_can_run_it():
    found = by_topic(check_machine(Config()))
    assert list(found) == [
        "python",
        "packages",
        "array backend",
        "compiled code",
        "memory",
        "clock",
    ]
    assert found["python"].state == found["packages"].state == "ok"
    assert "NumPy" in found["array backend"].detail
    assert all(finding.remedy for finding in found.values() if finding.state != "ok")


def test_a_package_that_is_missing_or_too_old_is_named_with_the_command(monkeypatch):
    wanted = [
        "numpy>=1.26",
        "no-such-package>=1; extra == 'processor'",
        "click>=99.0; extra == 'processor'",
        "openai>=3; extra == 'analyzer'",
    ]
    monkeypatch.setattr(doctor_machine, "requires", lambda _: wanted)
    found = by_topic(check_machine(Config()))["packages"]
    assert found.state == "fail"
    assert found.detail.startswith("no-such-package is missing; click ")
    assert found.detail.endswith("is older than 99.0")
    assert found.remedy == "pip install 'kat-otel[processor]'"


def test_a_clock_that_is_not_synchronised_is_said(monkeypatch):
    monkeypatch.setattr(doctor_machine, "_clock_state", lambda: (False, 0))
    assert by_topic(check_machine(Config()))["clock"].state == "warn"
    monkeypatch.setattr(doctor_machine, "_clock_state", lambda: (True, 1_500))
    clock = by_topic(check_machine(Config()))["clock"]
    assert (clock.state, clock.detail.endswith("off by 1.5 ms at most")) == ("ok", True)


def test_more_memory_wanted_than_there_is_names_the_settings(monkeypatch):
    monkeypatch.setattr(doctor_machine, "_memory_mib", lambda: 512)
    memory = by_topic(check_machine(Config()))["memory"]
    assert memory.state == "warn"
    assert "assembler.max_pending_mib" in memory.remedy


def test_an_endpoint_that_takes_all_signals_is_well_and_keeps_nothing(backend):
    config = ExporterConfig(endpoint=f"127.0.0.1:{backend.port}")
    assert [finding.state for finding in check_endpoint(config)] == ["ok"] * 3
    assert len(backend.spans) == 0


def test_an_endpoint_that_is_not_there_is_said_once_with_the_remedy(free_port):
    (finding,) = check_endpoint(ExporterConfig(endpoint=f"127.0.0.1:{free_port}"))
    assert finding.state == "fail"
    assert "UNAVAILABLE" in finding.detail
    assert "start the collector" in finding.remedy


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "exporter.headers"),
        (grpc.StatusCode.UNIMPLEMENTED, "OTLP receiver over gRPC"),
    ],
)
def test_an_endpoint_that_refuses_says_what_to_set_and_no_secret(backend, code, remedy):
    backend.answers.put((code, ()))
    config = ExporterConfig(
        endpoint=f"127.0.0.1:{backend.port}", headers={"Authorization": "hunter2"}
    )
    (finding,) = check_endpoint(config)
    assert finding.state == "fail"
    assert remedy in finding.remedy
    assert "hunter2" not in repr(finding)


def test_a_backend_without_logs_is_a_choice(backend, monkeypatch):
    def service(details, whole=backend.service):
        return None if "logs" in details.method else whole(details)

    monkeypatch.setattr(backend, "service", service)
    found = list(check_endpoint(ExporterConfig(endpoint=f"127.0.0.1:{backend.port}")))
    assert [finding.state for finding in found] == ["ok", "warn", "ok"]


def config_of(port: int) -> Config:
    return Config.model_validate(
        {"receiver": {"endpoint": "127.0.0.1:0"}, "health": {"endpoint": f"127.0.0.1:{port}"}}
    )


def test_a_taken_port_is_a_failure_if_asked_for_and_a_warning_if_filled_in():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = config_of(taken.getsockname()[1])
        asked = by_topic(check_ports(config, frozenset(), None))
        filled = by_topic(check_ports(config, frozenset({"health.endpoint"}), None))
    assert asked["port of receiver"].state == "ok"
    assert asked["port of health"].state == "fail"
    assert asked["port of health"].remedy.startswith("ss -ltnp")
    assert filled["port of health"].state == "warn"


WAYS = {  # what the settings say of the health port, and whether it tells of itself
    "plain": ({}, True),
    "plain, with a token": ({"auth": {"token": "hunter2"}}, False),
    "TLS": ({"tls": "server"}, True),
    "TLS, with a token": ({"tls": "server", "auth": {"token": "hunter2"}}, True),
    "mutual TLS": ({"tls": "mutual"}, False),
    "shut": (None, False),
}


@pytest.mark.parametrize("logged", [True, False], ids=["with a log", "in memory"])
@pytest.mark.parametrize("way", WAYS)
def test_the_running_processor_is_known_and_its_ports_are_no_problem(
    judge_class, pki, free_port, tmp_path, way, logged
):
    health, tells = WAYS[way]
    if health is not None:
        tls = health.get("tls") and pki.tls(mutual=health["tls"] == "mutual").model_dump()
        health = {**health, "tls": tls, "endpoint": f"127.0.0.1:{free_port}"}
    config = Config.model_validate(
        {
            "receiver": {"endpoint": "127.0.0.1:0"},
            "health": health or {},
            "exporter": {"endpoint": None},
            "wal": {"directory": str(tmp_path / "log") if logged else None},
        }
    )
    with Processor(config, judge=judge_class) as processor:
        receiver = {"endpoint": f"127.0.0.1:{processor.port}"}
        config = Config.model_validate(config.model_dump() | {"receiver": receiver})
        running = find_running(config)
        found = by_topic(check_ports(config, frozenset(), running))
    assert (running is not None) is (tells or logged)
    if running is None:
        return  # nobody could know
    assert (", ready" in running.detail) is tells
    assert (f"process {os.getpid()} on" in running.detail) is logged
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["port of receiver"].detail.endswith("in use, by the running processor")
    assert "hunter2" not in repr((running, found))
    assert find_running(config) is None  # it has ended


def test_a_token_is_shown_to_nobody_who_cannot_be_known(pki):
    """Somebody else may have the port: a stranger's certificate, or none at all."""
    seen = []

    async def listen_in(scope, receive, send):
        seen.append(dict(scope["headers"]).get(b"authorization"))
        await PlainTextResponse("{}")(scope, receive, send)

    stranger, key = map(str, pki.stranger)
    for tls in (None, ServerTlsConfig(cert_file=stranger, key_file=key)):
        server = HttpServer("stranger", "127.0.0.1:0", listen_in, tls, key="health")
        server.start()
        health = {
            "endpoint": f"127.0.0.1:{server.port}",
            "tls": tls and pki.tls().model_dump(),
            "auth": {"token": "hunter2"},
        }
        assert find_running(Config.model_validate({"health": health})) is None
        server.stop()
    assert seen == [None]  # the plain one; the other's handshake failed


def test_ports_of_a_collector_beside_the_running_processor_are_not_called_its_own(
    tmp_path, backend, free_port
):
    with socket.create_server(("127.0.0.1", 0)) as collectors:
        taken = f"127.0.0.1:{collectors.getsockname()[1]}"
        shut = "".join(f"{name}: {{endpoint: null}}\n" for name in ("control", "debug", "health"))
        file = tmp_path / "kat.yaml"
        file.write_text(
            f"receiver: {{endpoint: '127.0.0.1:{free_port}', http: {{endpoint: null}}}}\n"
            f"exporter: {{endpoint: '127.0.0.1:{backend.port}'}}\n"
            f"wal: {{directory: {tmp_path / 'log'}, max_size_mib: 64}}\n"
            f"{shut}prometheus: {{endpoint: null}}\n"
        )
        command = [sys.executable, "-m", "kat_otel", "process", "--config", str(file)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert any("receiving OTLP on port" in line for line in process.stderr)
            whole = list(examine(file))
            config = load_config(file).model_copy(
                update={"prometheus": PrometheusConfig(endpoint=taken)}
            )
            running = find_running(config)
            asked = by_topic(check_ports(config, frozenset(), running))
            filled = by_topic(check_ports(config, frozenset({"prometheus.endpoint"}), running))
        finally:
            process.kill()
            process.communicate()
    assert "fail" not in {finding.state for finding in whole}
    assert by_topic(whole)["processor"].state == "ok"
    assert asked["port of receiver"].detail.endswith("in use, by the running processor")
    assert asked["port of prometheus"].state == "fail"
    assert filled["port of prometheus"].state == "warn"
    assert "another process" in filled["port of prometheus"].detail


def test_a_log_with_pending_requests_is_counted_and_left_as_it_is(tmp_path):
    log = WriteAheadLog(tmp_path, 64 << 20)
    numbers = [log.append("traces", b"x" * 2_000_000, 1) for _ in range(3)]
    log.settle(numbers[:1])
    log.close()
    before = (tmp_path / "data.mdb").read_bytes()
    found = by_topic(check_log(WalConfig(directory=str(tmp_path), max_size_mib=64)))
    assert "2 requests pending" in found["log"].detail
    assert {finding.state for finding in found.values()} <= {"ok", "warn"}
    assert (tmp_path / "data.mdb").read_bytes() == before
    assert not list(tmp_path.glob(".kat-doctor-*"))


def test_a_log_in_use_names_who_has_it(tmp_path):
    log = WriteAheadLog(tmp_path, 64 << 20)
    found = by_topic(check_log(WalConfig(directory=str(tmp_path), max_size_mib=64)))
    log.close()
    assert found["log"].state == "ok"
    assert f"in use by process {os.getpid()}" in found["log"].detail


def test_a_file_that_is_no_log_is_a_failure(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"not a log" * 1_000)
    found = by_topic(check_log(WalConfig(directory=str(tmp_path), max_size_mib=64)))
    assert found["log"].state == "fail"
    assert f"move {tmp_path} aside" in found["log"].remedy


def test_a_directory_that_is_not_there_yet_will_be_made(tmp_path):
    found = by_topic(check_log(WalConfig(directory=str(tmp_path / "a" / "b"), max_size_mib=64)))
    assert "made at the first start" in found["log"].detail
    assert not (tmp_path / "a").exists()


def test_no_log_is_a_warning():
    (finding,) = check_log(WalConfig())
    assert (finding.state, "wal.directory" in finding.remedy) == ("warn", True)


def test_directories_that_cannot_be_written_are_failures(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    (log,) = check_log(WalConfig(directory=str(tmp_path / "log")))
    (states,) = check_states(StateConfig(directory=str(tmp_path)))
    assert log.state == states.state == "fail"
    assert "wal.directory" in log.remedy
    assert "state.directory" in states.remedy


def test_wrong_settings_are_the_first_finding_and_the_machine_is_looked_at_all_the_same(tmp_path):
    file = tmp_path / "kat.yaml"
    file.write_text("receiver: {auth: {tokn: hunter2}}\n")
    first, *others = examine(file)
    assert first.state == "fail"
    assert "line 1: unknown setting 'receiver.auth.tokn'" in first.detail
    assert {finding.topic for finding in others} >= {"python", "clock"}
    assert "hunter2" not in repr(first)
