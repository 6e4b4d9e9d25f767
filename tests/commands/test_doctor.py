"""``kat doctor`` as a person and a script meet it."""

import json
import os
import pty
import subprocess
import sys

import pytest

KAT = [sys.executable, "-m", "kat_otel", "doctor"]


@pytest.fixture
def file(tmp_path, free_port):
    path = tmp_path / "kat.yaml"
    path.write_text(
        "receiver: {endpoint: '127.0.0.1:0'}\n"
        f"exporter: {{endpoint: '127.0.0.1:{free_port}'}}\n"
        f"wal: {{directory: {tmp_path / 'log'}, max_size_mib: 64}}\n"
    )
    return path


def test_what_must_be_mended_is_exit_code_1_and_a_line_each(file):
    done = subprocess.run([*KAT, "--config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}
    (failed,) = [line for line in lines if line.startswith("fail")]
    assert failed.startswith("fail  endpoint for traces: 127.0.0.1:")
    assert " -> start the collector" in failed
    assert "\x1b" not in done.stdout


def test_nothing_to_mend_is_exit_code_0_and_data_for_scripts(file):
    file.write_text(
        file.read_text().replace("exporter: {endpoint:", "exporter: {endpoint: null} #")
    )
    done = subprocess.run(
        [*KAT, "--config", file, "--format", "json"], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    assert document["ok"] is True
    assert {"topic", "state", "detail", "remedy"} == set(document["findings"][0])


def test_a_terminal_gets_a_table(file):
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*KAT, "--config", file], stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 1
    assert "looked at" in text
    assert "-> start the collector" in text
    assert "\x1b[1;31m" in text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # how a terminal says that the other side has gone
        return b""
