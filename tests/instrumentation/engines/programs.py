"""Runs programs with the engines' fakes and reads what the doubles wrote down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
_HEAD = "import doubles\n"


@dataclass
class Done:
    code: int
    output: str
    errors: str
    events: list[dict[str, Any]]

    def of(self, kind: str, pid: int | None = None) -> list[dict[str, Any]]:
        return [e for e in self.events if e["kind"] == kind and pid in (None, e["pid"])]

    def said(self, key: str) -> list[Any]:
        return [e["message"][key] for e in self.of("say") if key in e["message"]]

    def pids(self) -> list[int]:
        return sorted({e["pid"] for e in self.events})

    def begun(self, pid: int | None = None) -> list[tuple[int, int]]:
        """Step and flags of every begin."""
        return [(e["step"], e["flags"]) for e in self.of("mark", pid) if e["edge"] == 0]


class Programs:
    """Programs of one test; all of them share a folder for the store and the journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("journal", "store"):
            (folder / name).mkdir(exist_ok=True)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAT_", "OTEL_"))}
        kept.update(
            PYTHONPATH=os.pathsep.join(map(str, (HERE / "fakes", HERE, REPOSITORY))),
            KAT_JOURNAL=str(self.folder / "journal"),
            FAKE_STORE=str(self.folder / "store"),
            PYTHONWARNINGS="error",
        )
        return kept | more

    def start(
        self, program: str, *command: str, doubles: bool = True, **more: str
    ) -> subprocess.Popen[str]:
        number = len(list(self.folder.glob("*.py")))
        file = self.folder / f"program{number}.py"
        file.write_text((_HEAD if doubles else "") + textwrap.dedent(program))
        return subprocess.Popen(
            [*(command or (sys.executable,)), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**more),
            cwd=self.folder,
        )

    def finish(self, programs: Sequence[subprocess.Popen[str]]) -> Done:
        told = [program.communicate(timeout=60) for program in programs]
        events = [
            json.loads(line)
            for file in sorted((self.folder / "journal").iterdir())
            for line in file.read_text().splitlines()
        ]
        return Done(
            max(abs(program.returncode) for program in programs),
            "".join(out for out, _ in told),
            "".join(errors for _, errors in told),
            events,
        )

    def run(self, program: str, *command: str, doubles: bool = True, **more: str) -> Done:
        done = self.finish([self.start(program, *command, doubles=doubles, **more)])
        assert done.code == 0, done.errors
        return done
