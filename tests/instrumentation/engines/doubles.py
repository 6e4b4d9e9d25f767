"""Doubles of capture and helper that write down what is asked of them, in whichever process.

Imported at the top of a program under test, before anything starts. Every process writes a file
of its own into ``KAT_JOURNAL``: one JSON object a line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from types import ModuleType
from typing import Any

from kat_otel.errors import KatError


def write(kind: str, **said: Any) -> None:
    path = os.path.join(os.environ["KAT_JOURNAL"], f"{os.getpid()}.jsonl")  # noqa: PTH118
    line = {"kind": kind, "pid": os.getpid(), "thread": threading.get_native_id(), **said}
    with open(path, "a") as file:  # noqa: PTH123
        file.write(json.dumps(line) + "\n")


class Capture:
    fd = 7

    @classmethod
    def start(cls, _settings: Any, cupti: bool = True) -> Capture:
        if cupti and os.environ.get("FAKE_CUPTI_BUSY"):
            raise KatError("CUPTI is in use by another tool — stop the profiler")
        write("start", cupti=cupti)
        return cls()

    def mark(self, step: int, micro: int, edge: int, flags: int) -> None:
        if os.environ.get("FAKE_MARK_FAILS"):
            raise RuntimeError("the region is gone")
        write("mark", step=step, micro=micro, edge=int(edge), flags=int(flags), at=time.time_ns())

    def say(self, message: bytes) -> bool:
        write("say", message=json.loads(message))
        return True

    def stop(self) -> None:
        write("stop")


class Helper:
    def close(self) -> None:
        write("close")


def start_helper(fd: int, _settings: Any, _unheard: Any = None) -> Helper | None:
    assert fd == Capture.fd
    if os.environ.get("FAKE_NO_HELPER"):
        return None
    write("helper")
    return Helper()


for _name, _content in (
    ("capture.cupti", {"Capture": Capture}),
    ("sending.helping", {"start_helper": start_helper}),
):
    _module = ModuleType(f"kat_otel.instrumentation.{_name}")
    vars(_module).update(_content)
    sys.modules[_module.__name__] = _module
