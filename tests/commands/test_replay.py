"""``kat replay``: real trace files to a real receiver, and clear words when that fails."""

import threading

import numpy as np
import pytest
from click.testing import CliRunner

from kat_otel.commands.replay import replay
from kat_otel.config import AssemblerConfig, Config, ExporterConfig, ReceiverConfig
from kat_otel.processor.replay import stamp
from kat_otel.processor.server import Processor
from kat_otel.spans import SpanKind
from kat_otel.verdict import Clock, Coverage, Report, Source


class Listener:
    """A judge that blames nobody and keeps what it saw."""

    def __init__(self) -> None:
        self.tables = []
        self.changed = threading.Condition()

    def __call__(self):
        return self

    def judge(self, table):
        with self.changed:
            self.tables.append(table)
            self.changed.notify_all()
        return Report(
            source=Source(
                files=[],
                ranks=[],
                world_size=None,
                resolution_ns=1,
                clock=Clock(state="aligned", max_offset_ns=0),
            ),
            coverage=Coverage(spans=len(table), kernels=0, aligned=0, unmatched=0, notes=[]),
            steps=[],
            incidents=[],
        )


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def processor(listener):
    config = Config(
        receiver=ReceiverConfig(endpoint="127.0.0.1:0"),
        assembler=AssemblerConfig(decision_wait=3600),
        exporter=ExporterConfig(endpoint=None),
    )
    with Processor(config, judge=listener) as processor:
        yield processor


def run(*arguments: object):
    return CliRunner().invoke(replay, [str(argument) for argument in arguments])


def test_eight_ranks_arrive_as_one_complete_step(traces, dlrm, processor, listener):
    result = run(traces / "dlrm_8rank", "--endpoint", f"127.0.0.1:{processor.port}")
    assert result.exit_code == 0, result.output
    assert "19,789 spans of 8 ranks" in result.output
    assert "instance replay-dlrm_8rank" in result.output
    with listener.changed:
        assert listener.changed.wait_for(lambda: listener.tables, 20)
    assert processor.books.marked("steps complete") == 1
    (table,) = listener.tables
    assert len(table) == len(dlrm)
    # The same spans, moved in time as a whole.
    ours, theirs = (t.take(np.lexsort((t.span_id, t.rank))) for t in (table, dlrm))
    assert set((ours.start_ns - theirs.start_ns).tolist()) == {
        int(ours.start_ns[0] - theirs.start_ns[0])
    }
    assert ours.duration_ns.tolist() == theirs.duration_ns.tolist()
    assert [ours.name_of(r) for r in range(0, len(ours), 97)] == [
        theirs.name_of(r) for r in range(0, len(ours), 97)
    ]
    # Only worker steps have no parent here: the root is the processor's.
    assert set(table.kind[table.parent < 0].tolist()) == {SpanKind.WORKER_STEP}
    assert {r.instance for r in table.resources} == {"replay-dlrm_8rank"}
    assert all("/" not in r.source for r in table.resources)


def test_nobody_there_is_exit_code_1_with_the_remedy(traces, free_port):
    endpoint = f"127.0.0.1:{free_port}"
    result = run(traces / "dlrm_8rank", "--endpoint", endpoint, "--patience", 0.1)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert f"error: {endpoint}: UNAVAILABLE" in said
    assert "is the collector or `kat process` running there?" in said


def test_no_readable_file_is_exit_code_2(tmp_path, processor):
    broken = tmp_path / "trace.json"
    broken.write_text("{ not a trace")
    result = run(broken, "--endpoint", f"127.0.0.1:{processor.port}")
    assert result.exit_code == 2
    assert "trace.json" in result.output.replace("\n", "")  # wherever the line was broken


def test_two_replays_of_a_file_are_two_different_traces(dlrm):
    first, second = (stamp(dlrm, "a", nonce, None) for nonce in (1, 2))
    assert set(first.trace_lo.tolist()).isdisjoint(second.trace_lo.tolist())
    assert first.start_ns.tolist() == dlrm.start_ns.tolist()
    tops = dlrm.kind == SpanKind.WORKER_STEP
    assert set(first.parent_id[tops].tolist()).isdisjoint(second.parent_id[tops].tolist())
