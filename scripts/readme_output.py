"""Puts what `kat analyze` really prints for the 8-rank trace into README.md (`make readme`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
TRACES = Path(os.environ.get("KAT_TRACES") or REPOSITORY.parent / "shared" / "traces")
BLOCK = re.compile(r"(?<=\$ \.venv/bin/kat analyze dlrm_8rank\n).*?(?=```)", re.DOTALL)


def shown(printed: str) -> str:
    """The culprit, the table, the first incident, and what was read."""
    first, _, rest = printed.partition("\n2. ")
    read = next(line for line in rest.splitlines() if line.startswith("Read:"))
    lines = [line.rstrip() for line in first.rstrip().splitlines()]
    return "\n".join([*lines, "...", read]) + "\n"


if __name__ == "__main__":
    command = [sys.executable, "-m", "kat_otel", "analyze", str(TRACES / "dlrm_8rank")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    README.write_text(BLOCK.sub(lambda _: shown(printed), README.read_text()))
