"""A defect befalls one step or batch: its spans leave as they came, the others are judged.

Stages are made to fail on purpose, all else is real: gRPC, the log on disk, the backend.
"""

import importlib
from dataclasses import replace

import pytest

from kat_otel import semconv
from kat_otel.config import Config
from kat_otel.otlp import encode_traces
from kat_otel.processor.leaving import as_they_came
from kat_otel.processor.server import Processor
from kat_otel.processor.wal import WriteAheadLog
from tests.processor.receiving import a_log, by_grpc

BEFORE = {  # stages that decide what becomes of the spans
    "parting a batch": ("assembler", "split_by_step"),
    "adding a rank": ("pending", "merge_ids"),
    "putting together": ("pending", "whole_step"),
    "classifying": ("assembled", "classify"),
    "reducing": ("leaving", "select_spans"),
    "citing": ("leaving", "cited_rows"),
    "marking": ("leaving", "mark_incidents"),
    "making a root": ("leaving", "with_root"),
    "encoding": ("leaving", "encode_requests"),
}
AFTER = {  # stages that tell of it
    "joining hardware": ("hardware", "HardwareJoin.explain"),
    "keeping a journal": ("incidents", "IncidentJournal.changed"),
    "encoding the event": ("log_events", "encode_logs"),
    "showing": ("recent", "Recent.judged"),
    "measuring lateness": ("pipeline", "arrival_lateness"),
    "measuring": ("measure", "Measurements.step"),
    "writing the judge down": ("judges", "Judges.judged"),
}


class DefectError(Exception):
    """No error that any code expects."""


@pytest.fixture
def failing(monkeypatch):
    """Makes a function of the processor raise, the first so many times that it is called."""

    def fail(where: tuple[str, str], times: int = 1):
        module = importlib.import_module(f"kat_otel.processor.{where[0]}")
        *path, name = where[1].split(".")
        holder = getattr(module, path[0]) if path else module
        whole, calls = getattr(holder, name), []

        def broken(*arguments, **named):
            calls.append(name)
            if len(calls) <= times:
                raise DefectError(name)
            return whole(*arguments, **named)

        monkeypatch.setattr(holder, name, broken)
        return calls

    return fail


@pytest.fixture
def settings(tmp_path):
    def of(port: int | None, **more) -> Config:
        return Config.model_validate(
            {
                "receiver": {"endpoint": "127.0.0.1:0"},
                "exporter": {
                    "endpoint": port and f"127.0.0.1:{port}",
                    "retry": {"initial_interval": 0.01, "max_interval": 0.05},
                },
                "wal": {"directory": str(tmp_path / "log"), "max_size_mib": 64},
                "metrics": {"interval": 0},
                **more,
            }
        )

    return of


def send(export, tables) -> set[int]:
    for table in tables:
        for data in encode_traces(table):
            export(data, timeout=20)
    return {int(span) for table in tables for span in table.span_id}


def ids(backend) -> set[int]:
    return set(backend.spans.span_id.tolist())


def closed(processor: Processor, tmp_path) -> dict[str, int]:
    """The books of a processor that ended well, and left nothing in its log."""
    processor.wait(0)
    balance = processor.books.balance()
    assert balance.pending == 0, str(balance)
    log = WriteAheadLog(tmp_path / "log", 64 * 2**20)
    left = len(list(log.pending()))
    log.close()
    assert left == 0
    return dict(balance.counts)


@pytest.mark.parametrize("stage", BEFORE)
def test_a_step_that_a_stage_cannot_stomach_leaves_as_it_came(
    stage, failing, settings, fleet, backend, connect, judge_class, tmp_path, caplog
):
    calls, reports = failing(BEFORE[stage]), []
    config = settings(backend.port, assembler={"decision_wait": 0.2})
    with Processor(
        config, judge=judge_class, on_report=lambda report, _: reports.append(report)
    ) as processor:
        export = connect(processor.port)
        poison = send(export, fleet.step(0, rank2=5_000_000))
        backend.wait_for(lambda: poison <= set(backend.spans_unlocked().span_id.tolist()))
        good = send(export, fleet.step(1, rank2=5_000_000))
        backend.wait_for(lambda: good <= set(backend.spans_unlocked().span_id.tolist()))
    assert calls
    counts = closed(processor, tmp_path)
    assert counts == {"acknowledged": 88, "forwarded": 88}
    assert reports[-1].steps[0].step == 1
    assert reports[-1].abstained is None
    told = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[0] for record in told] == [DefectError]


@pytest.mark.parametrize("stage", AFTER)
def test_a_defect_in_telling_neither_holds_spans_nor_sends_them_twice(
    stage, failing, settings, fleet, backend, connect, judge_class, tmp_path, caplog
):
    calls = failing(AFTER[stage])
    with Processor(settings(backend.port), judge=judge_class) as processor:
        export = connect(processor.port)
        spans = send(export, [*fleet.step(0, rank2=5_000_000), *fleet.step(1, rank2=5_000_000)])
    assert calls
    assert closed(processor, tmp_path) == {"acknowledged": 88, "forwarded": 88}
    assert spans <= ids(backend)
    assert len(backend.spans) == 88 + 2  # and the two roots
    told = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[0] for record in told] == [DefectError]


def test_hardware_that_cannot_be_read_passes_on(failing, settings, backend, connect, judge_class):
    failing(("hardware", "HardwareJoin.take"))
    with Processor(settings(backend.port), judge=judge_class) as processor:
        assert by_grpc(processor.port, a_log(), signal="logs").outcome == "taken"
        backend.wait_for(lambda: backend.logs)
    processor.wait(0)
    assert processor.books.marked("hardware signals failed") == 1


def test_metrics_that_cannot_be_made_are_left_out(failing, settings, backend, judge_class):
    calls = failing(("measure", "Measurements.encode"))
    config = settings(backend.port, metrics={"interval": 0.05})
    with Processor(config, judge=judge_class) as processor:
        backend.wait_for(lambda: backend.metrics)
    assert len(calls) >= 2
    assert processor.books.marked("metrics failed") == 1


def test_late_spans_that_cannot_be_marked_leave_unmarked(
    failing, settings, fleet, backend, connect, judge_class, tmp_path
):
    config = settings(backend.port, assembler={"decision_wait": 0.2})
    with Processor(config, judge=judge_class) as processor:
        export = connect(processor.port)
        *most, last = fleet.step(0, rank2=5_000_000)
        send(export, most)
        backend.wait_for(lambda: backend.tables)
        failing(("pipeline", "Pipeline._late"))
        late = send(export, [last])
        backend.wait_for(lambda: late <= set(backend.spans_unlocked().span_id.tolist()))
    assert processor.books.marked("late spans failed") == 1
    assert closed(processor, tmp_path) == {"acknowledged": 44, "forwarded": 44}


def test_what_cannot_be_encoded_even_as_it_came_is_dropped_with_its_neighbours_and_counted(
    failing, settings, fleet, backend, connect, judge_class, tmp_path
):
    # The marked step, the step as it came, and two of its parts of one span each.
    failing(BEFORE["encoding"], times=4)
    with Processor(settings(backend.port), judge=judge_class) as processor:
        export = connect(processor.port)
        send(export, fleet.step(0, rank2=5_000_000))
        send(export, fleet.step(1, rank2=5_000_000))
    counts = closed(processor, tmp_path)
    assert counts == {"acknowledged": 88, "forwarded": 86, "dropped:internal error": 2}


@pytest.mark.parametrize("exporting", [True, False])
def test_the_fates_of_a_table_add_up(exporting, failing, fleet):
    failing(BEFORE["encoding"], times=2 if exporting else 0)
    table = fleet.rank(0, 0)
    leaving = as_they_came([table, fleet.rank(1, 0)], (1,), 2**20 if exporting else None)
    carried = sum(payload.spans for payload in leaving.payloads)
    assert carried + sum(leaving.fates.values()) == 22
    assert carried == (21 if exporting else 0)


@pytest.mark.parametrize("stage", BEFORE)
def test_found_in_the_log_it_is_no_crash_loop(
    stage, failing, settings, fleet, backend, connect, judge_class, tmp_path
):
    with Processor(settings(None, assembler={"decision_wait": 60}), judge=judge_class) as first:
        export = connect(first.port)
        spans = send(export, fleet.step(0, rank2=5_000_000)[:3])  # not complete: stays in the log
    assert first.books.balance().pending == 33
    calls = failing(BEFORE[stage])
    config = settings(backend.port, assembler={"decision_wait": 1})
    with Processor(config, judge=judge_class) as second:
        spans |= send(connect(second.port), fleet.step(0, rank2=5_000_000)[3:])
        backend.wait_for(lambda: spans <= set(backend.spans_unlocked().span_id.tolist()))
    assert calls
    assert closed(second, tmp_path) == {"acknowledged": 11, "recovered": 33, "forwarded": 44}


@pytest.mark.parametrize("stage", ["putting together", "encoding"])
def test_what_is_left_of_a_step_after_a_restart_leaves_too(
    stage, failing, settings, fleet, backend, connect, judge_class, tmp_path
):
    with Processor(settings(None, assembler={"decision_wait": 60}), judge=judge_class) as first:
        spans = send(connect(first.port), fleet.step(0)[:2])
    failing(BEFORE[stage])
    config = settings(backend.port, assembler={"decision_wait": 0.2})
    with Processor(config, judge=judge_class) as second:
        backend.wait_for(lambda: spans <= set(backend.spans_unlocked().span_id.tolist()))
    assert closed(second, tmp_path) == {"recovered": 22, "forwarded": 22}


def test_a_record_that_is_not_understood_any_more_passes_on_as_it_came(
    failing, settings, fleet, backend, connect, judge_class, tmp_path
):
    with Processor(settings(None, assembler={"decision_wait": 60}), judge=judge_class) as first:
        spans = send(connect(first.port), [fleet.rank(0, 0)])
    failing(("ingest", "decode_traces"))
    with Processor(settings(backend.port), judge=judge_class) as second:
        backend.wait_for(lambda: backend.tables)
    assert ids(backend) == spans
    assert second.books.marked("log records not understood") == 1
    assert closed(second, tmp_path) == {}


def test_a_clock_of_absurd_resolution_befalls_no_stage(fleet, backend, connect):
    """Beyond two seconds the attribute is one like any other, and the step is judged."""
    tables = []
    for table in fleet.step(0):
        said = {**table.resources[0].attributes, semconv.RESOLUTION_NS: 2**63 - 1}
        tables.append(replace(table, resources=(replace(table.resources[0], attributes=said),)))
    config = Config.model_validate(
        {
            "receiver": {"endpoint": "127.0.0.1:0"},
            "exporter": {"endpoint": f"127.0.0.1:{backend.port}"},
            "traces": {"healthy": "all"},
        }
    )
    with Processor(config) as processor:
        for table in tables:
            connect(processor.port)(b"".join(encode_traces(table)))
        backend.wait_for(lambda: backend.tables)
    assert processor.books.marked("steps failed") == 0
    assert processor.books.marked("steps complete") == 1
