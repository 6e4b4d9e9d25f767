"""Nothing acknowledged is lost to a kill, and any order of calls leaves what a dict would."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kat_otel.errors import LogFullError
from kat_otel.processor.log_store import LogStore, footprint
from kat_otel.processor.wal import WriteAheadLog

MIB = 1 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "wal"


WRITER = """
import hashlib, random, sys, threading
from pathlib import Path
from kat_otel.processor.wal import WriteAheadLog
log = WriteAheadLog(Path(sys.argv[1]), 256 << 20)
said = threading.Lock()
def work(seed):
    draw = random.Random(seed)
    mine = []
    while True:
        data = draw.randbytes(draw.choice([0, 10, 3_000, 40_000, 300_000]))
        number = log.append("traces", data, seed)
        with said:
            print("+", number, hashlib.md5(data).hexdigest(), flush=True)
        mine.append(number)
        if draw.random() < 0.4:
            gone = mine.pop(draw.randrange(len(mine)))
            with said:
                print("-", gone, flush=True)
            log.settle([gone])
for thread in range(6):
    threading.Thread(target=work, args=(random.randrange(2**32),), daemon=True).start()
threading.Event().wait()
"""


def killed(directory: Path, lines: int) -> tuple[dict[int, str], set[int]]:
    """Writes from six threads and kills that process; what it said was in, and settled."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    said += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    words = [line.split() for line in said if line.endswith("\n")]
    assert len(words) >= lines
    return (
        {int(w[1]): w[2] for w in words if w[0] == "+"},
        {int(w[1]) for w in words if w[0] == "-"},
    )


def after_kills(directory: Path, rounds: int, longest: int, seed: int) -> None:
    draw = random.Random(seed)
    acknowledged: dict[int, str] = {}
    settled: set[int] = set()
    forgotten: set[int] = set()  # settled, and the log closed after it: gone for good
    for _ in range(rounds):
        more, gone = killed(directory, draw.randrange(1, longest))
        assert not more.keys() & acknowledged.keys()  # no id is given twice
        assert min(more, default=2**62) > max(acknowledged, default=0)
        acknowledged |= more
        settled |= gone
        log = WriteAheadLog(directory, 256 * MIB)
        found = [(r.id, hashlib.md5(r.data).hexdigest()) for r in log.pending()]
        worked_off = [number for number, _ in found[:-100]]  # or it would be full one day
        log.settle(worked_off)
        log.close()
        assert [i for i, _ in found] == sorted({i for i, _ in found})
        there = dict(found)
        assert not acknowledged.keys() - there.keys() - settled
        assert not there.keys() & forgotten
        forgotten |= set(worked_off)
        settled |= forgotten
        assert {i: there[i] for i in acknowledged.keys() & there.keys()} == {
            i: acknowledged[i] for i in acknowledged.keys() & there.keys()
        }


def test_a_kill_loses_nothing_that_was_acknowledged(directory: Path) -> None:
    after_kills(directory, rounds=6, longest=400, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_kills_lose_nothing_that_was_acknowledged(directory: Path) -> None:
    after_kills(directory, rounds=50, longest=500, seed=2)


def test_what_is_acknowledged_was_synced_before(directory: Path) -> None:
    """The kernel's own record of a process: no append returns before data and state are synced."""
    if subprocess.run(["which", "strace"], check=False, capture_output=True).returncode:
        pytest.skip("strace not found: apt-get install strace")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from kat_otel.processor.wal import WriteAheadLog\n"
        "log = WriteAheadLog(Path(sys.argv[1]), 1 << 24)\n"
        "for _ in range(3):\n"
        "    os.write(2, b'BEGIN'); log.append('traces', bytes(50_000), 0); os.write(2, b'END')\n"
    )
    trace = directory.with_name("trace")
    calls = "trace=write,writev,pwrite64,fdatasync,openat"
    subprocess.run(
        ["strace", "-f", "-o", str(trace), "-e", calls, sys.executable, "-c", code, str(directory)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    text = trace.read_text()
    (data, state) = (
        [line for line in text.splitlines() if "data.mdb" in line and mode in line][-1][-1]
        for mode in ("O_RDWR", "O_DSYNC")  # LMDB writes the page that counts through the latter
    )
    appends = [part.split('"END"')[0] for part in text.split('"BEGIN"')[1:]]
    assert len(appends) == 3
    order = [f"write {data}", f"sync {data}", f"write {state}"]
    call = re.compile(r"(write|sync)\w*\((\d+)")
    for part in appends:
        done = [" ".join(found) for found in call.findall(part.split("\n", 1)[1])]
        assert [kind for kind, _ in groupby(done)] == [*order, "write 2"]


def test_the_sync_is_on() -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore(Path(directory), 16 * MIB)
        flags = store._environment.flags()
        store.close()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["writemap"]


# --- against a model -----------------------------------------------------------------------


class LogMachine(RuleBasedStateMachine):
    """Any order of appends, settlements and restarts leaves what a dict would hold."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.log = WriteAheadLog(Path(self.folder.name), 4 * MIB)
        self.model: dict[int, bytes] = {}
        self.highest = 0

    @rule(
        target=ids, size=st.sampled_from([0, 1, 100, 5_000, 600_000, 1_048_560]), fill=st.binary()
    )
    def append(self, size: int, fill: bytes) -> int:
        data = (fill + bytes(size))[:size]
        number = self.taken(data)
        if number == 0:
            assert self.log.size_bytes + footprint(size) > 2 * MIB
            return 0
        assert number > self.highest
        self.highest = number
        self.model[number] = data
        return number

    def taken(self, data: bytes) -> int:
        """Sends as a sender does that is told to come again; the id, or 0 if there is no room."""
        for _ in range(3):  # LMDB uses a page again when two transactions have passed
            try:
                return self.log.append("logs", data, 7)
            except LogFullError:
                continue
        return 0

    @rule(number=consumes(ids))
    def settle(self, number: int) -> None:
        self.log.settle([number])
        self.model.pop(number, None)

    @rule()
    def settle_all(self) -> None:
        self.log.settle(self.model)
        self.model.clear()

    @rule()
    def restart(self) -> None:
        self.log.close()
        self.log = WriteAheadLog(Path(self.folder.name), 4 * MIB)
        assert {r.id: r.data for r in self.log.pending()} == self.model

    @invariant()
    def is_bounded(self) -> None:
        assert self.log.size_bytes <= 4 * MIB

    def teardown(self) -> None:
        self.restart()
        self.log.close()
        self.folder.cleanup()


LogMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestLogMachine = LogMachine.TestCase
