"""KAT_SENDER=thread: the worker itself sends, to its end, and a forked child sends its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.sending import wiring
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.wiring import Sending, SendingThread
from kat_otel.instrumentation.settings import Settings
from kat_otel.lmdia.recording import Group
from kat_otel.spans import SpanKind, SpanTable, concat
from tests.instrumentation import needs, standin
from tests.instrumentation.engines.programs import Done, Programs
from tests.instrumentation.simulated import Collector, worker_of

needs.compiler()

WORK = """
import os, sys, threading
from kat_otel import step
from tests.instrumentation.capturing import rows
from tests.instrumentation.standin import Standin

cupti = Standin()

def work(number):
    with step():
        own = {"correlation": [number + 1], "thread": threading.get_native_id()}
        cupti.replay(rows("runtime", 1, name=1, **own), ["gemm", "cudaLaunchKernel"])
        cupti.replay(rows("kernel", 1, name=0, start=5_000, end=6_000, **own), ["gemm"])
        cupti.wait()
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def run(programs: Programs, collector: Collector, program: str, **environment: str) -> Done:
    settings = {
        "KAT_SENDER": "thread",
        "KAT_CUPTI_LIBRARY": str(standin.build()),
        "KAT_SAMPLE_EVERY": "1",
        "KAT_OVERHEAD_BUDGET": "0",
        "KAT_HARDWARE_INTERVAL": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "PYTHONWARNINGS": "default",  # of forks of a process with threads
    }
    return programs.run(WORK + program, doubles=False, **settings | environment)


def sent(collector: Collector) -> SpanTable:
    requests = [r for r in collector.requests if r.path == "/v1/traces"]
    return concat([SpanTable.empty(), *(r.table for r in requests)])


def steps_by_pid(table: SpanTable) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in np.flatnonzero(table.kind == SpanKind.WORKER_STEP).tolist():
        pid = table.resources[table.resource[row]].attributes["process.pid"]
        found.setdefault(int(pid), []).append(int(table.step[row]))
    return {pid: sorted(steps) for pid, steps in found.items()}


def test_all_steps_are_sent_before_the_program_ends(
    programs: Programs, collector: Collector
) -> None:
    done = run(
        programs,
        collector,
        """
for number in range(5): work(number)
names = sorted(t.name for t in threading.enumerate())
assert "kat-sender" in names and "kat-helper" not in names, names
print(os.getpid())
""",
        RANK="3",
        WORLD_SIZE="4",
        TORCHELASTIC_RUN_ID="run",
    )
    table = sent(collector)
    assert steps_by_pid(table) == {int(done.output): [0, 1, 2, 3, 4]}
    assert {(r.rank, r.world_size) for r in table.resources} == {(3, 4)}
    assert np.count_nonzero(table.kind == SpanKind.KERNEL) == 5
    assert done.errors == ""


def test_a_fork_sends_its_own_steps_and_the_parent_goes_on(
    programs: Programs, collector: Collector
) -> None:
    done = run(
        programs,
        collector,
        """
work(0)
pid = os.fork()
if pid == 0:
    with step(): pass
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
work(1)
print(os.getpid(), pid)
""",
    )
    parent, child = map(int, done.output.split())
    assert steps_by_pid(sent(collector)) == {parent: [0, 1], child: [0]}


def test_a_fork_while_capture_starts_ends_all_the_same(
    programs: Programs, collector: Collector
) -> None:
    run(
        programs,
        collector,
        """
from kat_otel.instrumentation.session import session
one = session()
one._lock.acquire()           # as a thread does that starts capture
pid = os.fork()
if pid == 0:
    one.stop()                # what is registered at exit
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
one._lock.release()
work(0)
""",
    )
    assert list(steps_by_pid(sent(collector)).values()) == [[0]]


def test_without_a_collector_the_program_ends_in_time(
    programs: Programs, collector: Collector
) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = run(programs, collector, "work(0)\nprint('ended')", **nowhere)
    assert done.output == "ended\n"


class Scripted:
    """A source of one batch after the other; the last again and again."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = list(batches)
        self.closed = False

    def take(self, _timeout: float) -> Batch:
        return self.batches.pop(0) if len(self.batches) > 1 else self.batches[0]

    def order(self, mode: str) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_what_the_source_holds_at_the_end_is_taken(pair: Group, collector: Collector) -> None:
    texts = [worker_of(pair, 0).encode(), b"{}", b"{}", b"{}"]
    source = Scripted(*(Batch(texts=(text,)) for text in texts), Batch())
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    one = Sending(Settings(), source, pid=1, environment=environment)
    one.sender.end()
    one.run()
    assert len(source.batches) == 1
    assert source.closed


def test_what_the_step_maker_counts_is_told(
    pair: Group, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts()
    monkeypatch.setattr(wiring, "Counts", lambda: counts)
    said = Batch(texts=(worker_of(pair, 0).encode(), b"nonsense"))
    source = Scripted(said, replace(Batch(), ended=True))
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
    thread = SendingThread(Settings(hardware_seconds=0), source)
    thread.close()
    assert counts["records:malformed"] == 1
