"""``kat process`` and ``kat validate`` as a supervisor and a person meet them."""

import signal
import subprocess
import sys
import time

import pytest

from kat_otel.processor.config_file import parse_config
from tests.integration.servers import free_endpoints, get
from tests.integration.traffic import Instance, Sender

KAT = [sys.executable, "-m", "kat_otel"]


@pytest.fixture
def started():
    """Starts ``kat`` with arguments; whatever still runs at the end is killed."""
    running = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [*KAT, *map(str, arguments)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def settings(tmp_path):
    def write(text: str):
        path = tmp_path / "kat.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_books_and_exit_code_0(started, settings, number):
    file = settings("receiver: {endpoint: '127.0.0.1:0'}\nexporter: {endpoint: null}\n")
    process = started("process", "--config", file)
    before = iter(process.stderr.readline, "")  # the decoder says first that it is ready
    assert any("receiving OTLP on port" in line for line in before)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "stopped; spans: no spans, pending 0" in said


def test_the_debug_port_has_reports_on_incidents(started, settings):
    at = free_endpoints("grpc", "debug")
    file = settings(
        f"receiver: {{endpoint: '{at['grpc']}'}}\nexporter: {{endpoint: null}}\n"
        f"debug: {{endpoint: '{at['debug']}'}}\n"
    )
    process = started("process", "--config", file)
    assert any("receiving OTLP" in line for line in iter(process.stderr.readline, ""))
    late = Instance("cli", ranks=2, culprit=1)
    with Sender(at["grpc"]) as sender:
        sender.send(late.steps(range(4)))
        sender.send(late.steps(range(4, 8), faulty=True))
    told = (line for line in iter(process.stderr.readline, "") if "late launch" in line)
    assert "rank 1" in next(told)
    while not (live := get(f"http://{at['debug']}/debug/live.json")["incidents"]):
        pass  # what is logged is shown a moment later
    assert "Rank 1 makes rank 0 wait" in get(f"http://{at['debug']}/incidents/{live[0]['id']}")


def test_wrong_settings_are_exit_code_2_with_the_line(started, settings):
    file = settings("receiver:\n  endpont: 127.0.0.1:4327\n")
    for command in ("process", "validate"):
        process = started(command, "--config", file)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 2
        assert f"{file}, line 2: unknown setting 'receiver.endpont'" in said
        assert "did you mean 'endpoint'" in said


def test_a_taken_port_is_exit_code_2(started, settings):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = settings(f"receiver: {{endpoint: '127.0.0.1:{port}'}}\n")
        process = started("process", "--config", file)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "is another process on that port?" in said


def test_validate_says_what_is_right(settings):
    file = settings("receiver: {endpoint: '0.0.0.0:4327', insecure: true}\n")
    done = subprocess.run(
        [*KAT, "validate", "--config", str(file)], capture_output=True, text=True, check=True
    )
    assert "receives on 0.0.0.0:4327, exports to 127.0.0.1:4337" in done.stdout


def test_validate_prints_settings_that_are_right_again_and_no_secret(settings, state_home):
    file = settings("receiver: {auth: {token: hunter2}}\nexporter: {headers: {a: hunter2}}\n")
    done = subprocess.run([*KAT, "validate", str(file)], capture_output=True, text=True, check=True)
    assert "hunter2" not in done.stdout
    assert "filled in by kat process: control.endpoint, debug.endpoint" in done.stdout
    shown = parse_config(done.stdout, "shown", {})
    assert shown.wal.directory == str(state_home / "kat-otel" / "4327")
    assert shown.health.endpoint == "127.0.0.1:13133"


def said_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Reads log lines until one has ``wanted``, and returns them all."""
    lines = ""
    while wanted not in lines:
        line = process.stderr.readline()
        assert line, f"{wanted!r} was never said, but:\n{lines}"
        lines += line
    return lines


QUIET = "receiver: {endpoint: '127.0.0.1:0'}\nexporter: {endpoint: null}\n"


def test_sighup_takes_new_settings_and_names_what_waits_for_a_restart(started, settings):
    file = settings(QUIET)
    process = started("process", "--config", file)
    said_until(process, "receiving OTLP on port")
    settings(QUIET + "telemetry: {level: debug}\nwal: {max_size_mib: 128}\n")
    process.send_signal(signal.SIGHUP)
    said = said_until(process, "wait for a restart")
    assert "settings taken: telemetry.level" in said
    assert "the old ones stay: wal.max_size_mib" in said
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


WAITS = """
from kat_otel.commands.process import _Signals
signals = _Signals()
signals.listen()
print("listening", flush=True)
while signals.wait(0.00001) != "stop":
    pass
"""


def test_a_signal_in_the_middle_of_the_wait_for_signals_is_heard():
    """Where a handler takes a lock that the wait holds, both stand still for ever."""
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"listening\n"
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def test_sighup_with_wrong_settings_leaves_the_old_ones_in_force(started, settings):
    file = settings(QUIET)
    process = started("process", "--config", file)
    said_until(process, "receiving OTLP on port")
    settings(QUIET + "traces: {helthy: all}\n")
    process.send_signal(signal.SIGHUP)
    said = said_until(process, "SIGHUP")
    assert "the old ones stay in force" in said
    assert f"{file}, line 3: unknown setting 'traces.helthy'" in said
    settings(QUIET + "traces: {healthy: all}\n")
    process.send_signal(signal.SIGHUP)
    assert "settings taken: traces.healthy" in said_until(process, "settings taken")


def test_a_port_that_nobody_asked_for_and_that_is_taken_is_a_warning(
    started, settings, state_home, free_port
):
    import socket

    from kat_otel.processor.defaults import CONVENTIONAL_PORTS

    file = settings(
        f"receiver: {{endpoint: '127.0.0.1:{free_port}', http: {{endpoint: null}}}}\n"
        "control: {endpoint: null}\nhealth: {endpoint: null}\ndebug: {endpoint: null}\n"
        "exporter: {endpoint: null}\n"
    )
    host, _, port = CONVENTIONAL_PORTS["prometheus.endpoint"].rpartition(":")
    try:
        taken = socket.create_server((host, int(port)))
    except OSError:  # a collector of this machine has it already
        taken = socket.socket()
    with taken:
        process = started("process", "--config", file)
        said = said_until(process, "receiving OTLP on port")
        assert "prometheus.endpoint stays shut: another process listens on" in said
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert (state_home / "kat-otel" / str(free_port)).is_dir()
