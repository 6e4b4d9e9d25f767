"""A file larger than its columns streams: the peak stays within three times what is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.readers.chrome import host, kernel, launch

STEPS, PER_STEP = 24, 2_500

MEASURE = r"""
import json, re, sys
def memory(key):
    return int(re.search(key + r":\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
from kat_otel.readers import read
before = memory("VmRSS")
table = read([sys.argv[1]]).table
print(json.dumps([len(table), table.nbytes, memory("VmHWM") - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc: run on Linux")
def test_peak_is_at_most_three_times_the_columns(tmp_path):
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write('{"distributedInfo": {"rank": 0, "world_size": 1}, "traceEvents": [')
        file.write(json.dumps(host("start", 0, 1)))
        correlation = 0
        for step in range(STEPS):
            base = step * 1_000_000
            events = [host(f"ProfilerStep#{step}", base, 999_999, cat="user_annotation")]
            for call in range(PER_STEP):
                at = base + 300 * call
                correlation += 1
                shapes = {"Input Dims": [[4096, 4096]] * 4, "Ev Idx": call}
                events += [
                    host("aten::linear", at, 200) | {"args": shapes},
                    host("aten::mm", at + 5, 150) | {"args": shapes},
                    launch(at + 20, correlation),
                    kernel(at + 100, correlation, name="void cutlass::Kernel<float>" * 8),
                ]
            file.write("".join("," + json.dumps(event) for event in events))
        file.write("]}")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True
    )
    rows, kept, peak = json.loads(done.stdout)
    assert rows > STEPS * PER_STEP * 4
    assert path.stat().st_size > 1.5 * kept  # else there would be nothing to show
    assert peak <= 3 * kept, f"{peak / kept:.2f} times the columns"
