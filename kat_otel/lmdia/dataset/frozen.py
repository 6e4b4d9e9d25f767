"""What the test cases depend on, as two hashes: the plan, and the code that plays it.

They are fixed before a detector is tuned, and stand beside every figure: a figure is of the cases
with these hashes and of no others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from kat_otel.lmdia.dataset.collection import cases_of
from kat_otel.lmdia.dataset.plan import fingerprint

__all__ = ["generator_hash", "plan_hash"]

_ROOM: Final = Path(__file__).resolve().parent.parent
_CODE: Final = (
    "fitted.py", "hardware.py", "noise.py", "program.py", "recording.py", "replay.py", "table.py",
    "tasks/*.py", "scenarios/*.py", "dataset/plan.py", "dataset/play.py", "dataset/sources.py",
)  # fmt: skip


def generator_hash() -> str:
    """Returns a hash of the code that makes cases: simulator, tasks, scenarios, plan."""
    digest = hashlib.sha256()
    for pattern in _CODE:
        for file in sorted(_ROOM.glob(pattern)):
            digest.update(file.relative_to(_ROOM).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def plan_hash() -> str:
    """Returns a hash of the plan of the test split, the size standard, without real traces."""
    return fingerprint(cases_of("standard", ["test"]))[:16]
