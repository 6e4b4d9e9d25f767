"""``kat process`` and ``kat validate`` as a supervisor and a person meet them."""

import signal
import subprocess
import sys

import pytest

from kat_otel.commands.process import with_log
from kat_otel.config import Config

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
    assert "receiving OTLP on port" in process.stderr.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "stopped; spans: no spans, pending 0" in said


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


def test_the_log_has_a_place_of_its_own_unless_the_file_says_otherwise(state_home):
    port = {"receiver": {"endpoint": "127.0.0.1:4999"}}
    named = with_log(Config.model_validate(port))
    assert named.wal.directory == str(state_home / "kat-otel" / "4999")
    for said in ({"wal": {"directory": None}}, {"wal": {"directory": "/x"}}):
        config = Config.model_validate({**port, **said})
        assert with_log(config) == config
    unnamed = Config.model_validate({"receiver": {"endpoint": "127.0.0.1:0"}})
    assert with_log(unnamed).wal.directory is None
