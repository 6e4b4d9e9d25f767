"""No read leaves the request, no write its column: guard pages, and every access checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FUZZ = REPOSITORY / "bench" / "fuzz_decode.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{FUZZ.parent}", **environment},
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="no guard pages here: run the tests on Linux")
def test_mutated_requests_before_a_closed_page_are_read_to_their_end_and_no_further():
    done = run(str(FUZZ), "4000", "11")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no read beyond the guards" in done.stdout
    assert "equal in every column" in done.stdout


def test_every_access_of_the_interpreted_walker_is_within_its_array():
    done = run(str(FUZZ), "400", "12", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal in every column" in done.stdout


# --- that both would notice ------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="no guard pages here: run the tests on Linux")
@pytest.mark.parametrize(("at_end", "place"), [(True, "len(raw) - 7"), (False, "-1")])
def test_a_read_beyond_the_guard_would_kill_the_process(at_end, place):
    done = run(
        "-c",
        "import fuzz_decode, numba; from kat_otel.otlp.memory import address_of, load64;"
        f"raw = fuzz_decode.Guarded().place(bytes(20), at_end={at_end});"
        "read = numba.njit(lambda at: load64(at));"
        f"print(read(address_of(raw) + {place}))",
    )
    assert done.returncode == -signal.SIGSEGV, done.stdout + done.stderr


@pytest.mark.parametrize("place", [-1, 13, 20])
def test_a_read_beyond_an_array_would_be_noticed_by_the_interpreted_walker(place):
    done = run(
        "-c",
        "import numpy as np; from kat_otel.otlp.memory import address_of, load64;"
        f"raw = np.zeros(20, np.uint8); load64(address_of(raw)); load64(address_of(raw) + {place})",
        NUMBA_DISABLE_JIT="1",
    )
    assert "OutOfBoundsError" in done.stderr
