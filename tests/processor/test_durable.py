"""What was acknowledged outlives the process: judged, sent or still in the log, never gone."""

import os
import signal
import subprocess
import sys

import grpc
import pytest

from kat_otel.config import Config
from kat_otel.otlp import encode_traces
from kat_otel.processor.server import Processor
from kat_otel.processor.wal import WriteAheadLog


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
        for data in encode_traces(fleet.rank(1, 0)):
            connect(second.port)(data)
    assert len(backend.spans) == 2 * len(table)  # an incident may cite what comes after it, too
    assert reports == []
    assert second.books.marked("steps in part after a restart") == 1
    assert second.books.balance().pending == 0


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


def test_a_full_log_is_backpressure_and_not_a_crash(settings, fleet, connect, judge_class):
    config = settings(None, assembler={"decision_wait": 60})
    with Processor(config, judge=judge_class) as processor:

        def full(*_) -> int:
            from kat_otel.errors import LogFullError

            raise LogFullError("no room")

        kept, processor._log.append = processor._log.append, full
        export = connect(processor.port)
        data = b"".join(encode_traces(fleet.rank(0, 0)))
        with pytest.raises(grpc.RpcError) as refused:
            export(data)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        processor._log.append = kept
        export(data)


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
