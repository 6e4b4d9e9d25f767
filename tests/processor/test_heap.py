"""A process that keeps its heap does not fault the same memory in again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kat_otel.processor import heap

FAULTS = """
import resource, sys
from kat_otel.processor.heap import keep_heap
if sys.argv[1] == "keep" and not keep_heap():
    raise SystemExit("no glibc")
def use():
    return [bytearray(3 << 20) for _ in range(8)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=False
    )
    if "no glibc" in run.stderr:
        pytest.skip("no glibc: run on a Linux distribution that has it")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_memory_used_again_is_not_faulted_in_again() -> None:
    assert faults("keep") < 0.1 * faults("as it is")


def test_a_c_library_that_cannot_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    assert not heap.keep_heap()


def test_circles_are_still_found_and_what_was_there_before_is_left_alone() -> None:
    script = """
import gc, weakref
from kat_otel.processor.heap import leave_alone
leave_alone()
class Node: pass
one = Node(); one.itself = one
gone = weakref.ref(one)
del one
waste = [[] for _ in range(100_000)]
print(gc.get_freeze_count() > 1000, gone() is None)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"]
