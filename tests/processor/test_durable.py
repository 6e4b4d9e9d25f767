"""What was acknowledged outlives the process: judged, sent or still in the log, never gone."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest

from kat_otel.config import Config
from kat_otel.otlp import encode_traces
from kat_otel.processor import ingest
from kat_otel.processor.retry_info import DETAILS_KEY, read_retry_delay
from kat_otel.processor.server import Processor
from kat_otel.processor.wal import WriteAheadLog
from tests.processor.receiving import by_http

FREE = "127.0.0.1:0"


@pytest.fixture
def settings(tmp_path):
    def of(endpoint: str | None, **more) -> Config:
        return Config.model_validate(
            {
                "receiver": {"endpoint": "127.0.0.1:0"},
                "exporter": {
                    "endpoint": endpoint,
                    "retry": {"initial_interval": 0.01, "max_interval": 0.05},
                },
                "wal": {"directory": str(tmp_path / "log"), "max_size_mib": 64},
                "metrics": {"interval": 0},
                "traces": {"healthy": "all"},
                **more,
            }
        )

    return of


def left(tmp_path) -> int:
    log = WriteAheadLog(tmp_path / "log", 64 * 2**20)
    try:
        return len(list(log.pending()))
    finally:
        log.close()


def ids(table) -> set[int]:
    return set(table.span_id.tolist())


def test_a_step_that_left_leaves_nothing_in_the_log(
    settings, fleet, backend, connect, judge_class, tmp_path
):
    config = settings(f"127.0.0.1:{backend.port}")
    with Processor(config, judge=judge_class) as processor:
        export = connect(processor.port)
        for rank in range(fleet.world_size):
            for data in encode_traces(fleet.rank(rank, 0)):
                export(data)
        backend.wait_for(lambda: backend.tables)
    assert processor.books.balance().pending == 0
    assert left(tmp_path) == 0


def test_what_the_backend_did_not_take_is_sent_by_the_next_process(
    settings, fleet, backend, connect, judge_class, tmp_path, free_port
):
    sent = set()
    config = settings(f"127.0.0.1:{free_port}", shutdown_timeout=1.0)
    with Processor(config, judge=judge_class) as first:
        export = connect(first.port)
        for rank in range(fleet.world_size):
            table = fleet.rank(rank, 0)
            sent |= ids(table)
            for data in encode_traces(table):
                export(data)
    assert first.books.total("dropped") == 0
    assert first.books.balance().pending == len(sent)
    with Processor(settings(f"127.0.0.1:{backend.port}"), judge=judge_class) as second:
        backend.wait_for(lambda: backend.tables)
    assert second.books.total("recovered") == len(sent)
    assert second.books.balance().pending == 0
    assert sent <= ids(backend.spans)
    assert left(tmp_path) == 0


def test_ranks_before_and_after_a_restart_make_one_step(
    settings, fleet, backend, connect, judge_class
):
    tables = [fleet.rank(rank, 0) for rank in range(fleet.world_size)]
    reports = []
    for part in (tables[:1], tables[1:]):
        config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 60})
        with Processor(
            config, judge=judge_class, on_report=lambda _, table: reports.append(len(table))
        ) as processor:
            export = connect(processor.port)
            for table in part:
                for data in encode_traces(table):
                    export(data)
    assert reports == [sum(map(len, tables))]
    assert processor.books.marked("steps complete") == 1


def test_a_remainder_of_a_step_that_left_before_is_not_judged(
    settings, fleet, backend, connect, judge_class
):
    table = fleet.rank(0, 0)
    config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 60})
    with Processor(config, judge=judge_class) as first:
        for data in encode_traces(table):
            connect(first.port)(data)
    reports = []
    config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 0.1})
    with Processor(
        config, judge=judge_class, on_report=lambda report, _: reports.append(report)
    ) as second:
        backend.wait_for(lambda: backend.tables)
        # No root says what is left out of this step: what comes of it later is whole, too.
        for data in encode_traces(fleet.rank(1, 0)):
            connect(second.port)(data)
        backend.wait_for(lambda: len(backend.tables) > 1)
    assert reports == []
    assert sum(map(len, backend.tables)) == 2 * len(table)
    assert second.books.marked("steps in part after a restart") == 1
    assert second.books.balance().pending == 0


def test_ranks_that_come_after_such_a_remainder_leave_whole_like_it(
    settings, fleet, backend, connect, judge_class
):
    """Their sender tried again later than a step waits: what it sends is no less than the rest."""
    before, after = fleet.rank(0, 0), fleet.rank(1, 0)
    config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 60})
    with Processor(config, judge=judge_class) as first:
        for data in encode_traces(before):
            connect(first.port)(data)
    config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 0.1})
    with Processor(config, judge=judge_class) as second:
        backend.wait_for(lambda: backend.tables)
        for data in encode_traces(after):
            connect(second.port)(data)
    assert ids(before) | ids(after) <= ids(backend.spans)
    assert second.books.total("summarised") == 0


SERVE = """
import sys
from kat_otel.config import Config
from kat_otel.processor.server import Processor
config = Config.model_validate_json(sys.argv[1])
processor = Processor(config)
processor.start()
print(processor.port, flush=True)
processor.wait()
"""


@pytest.mark.parametrize("kills", [3])
def test_kill_9_loses_nothing_that_was_acknowledged(
    settings, make_fleet, backend, connect, tmp_path, kills
):
    """Killed at whatever it is doing, again and again; every acknowledged span arrives."""
    fleet, acknowledged, step = make_fleet(), set(), 0
    config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 0.5})
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE, config.model_dump_json()],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            export = connect(int(child.stdout.readline()))
            for _ in range(4):
                for rank in range(fleet.world_size):
                    table = fleet.rank(rank, step)
                    for data in encode_traces(table):
                        export(data, timeout=20)
                    acknowledged |= ids(table)
                step += 1
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
    with Processor(config) as last:
        backend.wait_for(lambda: acknowledged <= ids(backend.spans_unlocked()))
    assert last.books.balance().pending == 0
    assert left(tmp_path) == 0


DIE = """
import os, sys
from kat_otel.config import Config
from kat_otel.processor.server import Processor

class Judge:
    def judge(self, table):
        os._exit(9)  # as the kernel does when memory runs out: nothing is caught or written

processor = Processor(Config.model_validate_json(sys.argv[1]), judge=Judge)
processor.start()
print(processor.port, flush=True)
processor.wait()
"""


def test_a_request_that_ends_two_starts_passes_on_as_it_came_and_ends_no_third(
    settings, fleet, backend, connect, judge_class, tmp_path
):
    config = settings(f"127.0.0.1:{backend.port}", assembler={"decision_wait": 0.5})
    sent = set()
    for _ in range(3):  # the first dies at work, two as they take it from the log
        child = subprocess.Popen(
            [sys.executable, "-c", DIE, config.model_dump_json()], stdout=subprocess.PIPE, text=True
        )
        if not sent:
            export = connect(int(child.stdout.readline()))
            for table in fleet.step(0):
                sent |= ids(table)
                export(b"".join(encode_traces(table)), timeout=20)
        assert child.wait(60) == 9
        child.stdout.close()
    assert not backend.tables
    with Processor(config, judge=judge_class) as last:
        backend.wait_for(lambda: sent <= ids(backend.spans_unlocked()))
    assert last.books.marked("log records that ended two starts") == 1
    assert last.books.balance().pending == 0
    assert left(tmp_path) == 0
    assert not (tmp_path / "log" / "recovering").exists()


def test_sigterm_ends_in_time_although_the_backend_hangs_and_what_waits_is_sent_later(
    settings, fleet, backend, connect, tmp_path
):
    config = settings(f"127.0.0.1:{backend.port}", shutdown_timeout=2)
    config = config.model_copy(
        update={"exporter": config.exporter.model_copy(update={"timeout": 60.0})}
    )
    file, acknowledged = tmp_path / "kat.yaml", set()
    file.write_text(config.model_dump_json())
    child = subprocess.Popen(
        [sys.executable, "-m", "kat_otel", "process", "--config", str(file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with backend.hanging():
            lines = iter(child.stderr.readline, "")
            said = next(line for line in lines if "receiving OTLP on port" in line)
            export = connect(int(said.split("port ")[1].split(",")[0]))
            for step in range(3):
                for table in fleet.step(step):
                    export(b"".join(encode_traces(table)), timeout=20)
                    acknowledged |= ids(table)
            backend.wait_for(lambda: backend.attempts)
            begun = time.monotonic()
            child.terminate()
            _, said = child.communicate(timeout=30)
            took = time.monotonic() - begun
    finally:
        child.kill()
        child.stderr.close()
    assert child.returncode == 0, said
    assert f"pending {len(acknowledged)}" in said
    assert 2.0 <= took < 2.0 + 1.5, said  # the allowance: a process that ends
    backend.tables.clear()
    with Processor(config) as second:
        backend.wait_for(lambda: acknowledged <= ids(backend.spans_unlocked()))
    assert second.books.balance().pending == 0
    assert left(tmp_path) == 0


def test_a_full_log_is_backpressure_and_not_a_crash(settings, fleet, connect, judge_class):
    receiver = {"endpoint": FREE, "http": {"endpoint": FREE}, "retry_after": 2.5}
    config = settings(None, assembler={"decision_wait": 60}, receiver=receiver)
    with Processor(config, judge=judge_class) as processor:

        def full(*_) -> int:
            from kat_otel.errors import LogFullError

            raise LogFullError("no room")

        kept, processor._log.append = processor._log.append, full
        export = connect(processor.port)
        data = b"".join(encode_traces(fleet.rank(0, 0)))
        with pytest.raises(grpc.RpcError) as refused:
            export(data)
        by_http_told = by_http(processor.http_port, data)
        processor._log.append = kept
        export(data)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(refused.value.trailing_metadata())[DETAILS_KEY]
    assert read_retry_delay(details) == 2.5
    assert (by_http_told.status, by_http_told.delay) == (503, 3.0)  # Retry-After has whole seconds


def test_a_log_that_was_full_and_worked_off_makes_ready_again_without_a_request(
    settings, fleet, backend, connect, judge_class, monkeypatch
):
    monkeypatch.setattr(ingest, "_BELIEVED_S", 0.2)
    entered, go_on = threading.Event(), threading.Event()

    class StuckJudge(judge_class):
        def judge(self, table):
            entered.set()
            assert go_on.wait(60)
            return super().judge(table)

    config = settings(f"127.0.0.1:{backend.port}", health={"endpoint": "127.0.0.1:0"})
    padding = b"\xfa\x7f\x80\x80\x80\x02" + bytes(2**22)  # a field that OTLP does not know
    with Processor(config, judge=StuckJudge) as processor:

        def readiness() -> tuple[int, str]:
            url = f"http://127.0.0.1:{processor.port_of('health')}/readyz"
            try:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        export = connect(processor.port)
        assert readiness()[0] == 200

        def fill() -> None:
            for step in range(16):
                for table in fleet.step(step):
                    export(b"".join(encode_traces(table)) + padding, timeout=20)

        with pytest.raises(grpc.RpcError, match="the log is full"):
            fill()
        time.sleep(0.4)  # longer than a refusal is believed: the log itself is asked
        status, said = readiness()
        assert (status, "no room for" in said) == (503, True)
        go_on.set()
        until = time.monotonic() + 20
        while readiness()[0] != 200:
            assert time.monotonic() < until, readiness()
            time.sleep(0.05)


def test_two_processes_cannot_have_one_log(settings, judge_class):
    from kat_otel.errors import ConfigError

    with (
        Processor(settings(None), judge=judge_class),
        pytest.raises(ConfigError, match="is in use by process"),
    ):
        Processor(settings(None), judge=judge_class)


def test_what_was_learnt_of_an_instance_goes_on_after_a_restart(
    settings, fleet, backend, connect, tmp_path
):
    books = []
    for step in range(2):
        with Processor(settings(f"127.0.0.1:{backend.port}")) as processor:
            export = connect(processor.port)
            for table in fleet.step(step):
                for data in encode_traces(table):
                    export(data)
        books.append(processor.books)
    assert [b.marked("states restored") for b in books] == [0, 1]
    assert any((tmp_path / "log" / "state").iterdir())
