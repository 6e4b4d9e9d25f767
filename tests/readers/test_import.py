"""Reading a Kineto file must not wait for libraries that only other formats need."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("google.protobuf", "grpc", "pydantic", "opentelemetry.proto", "rich", "numba")


def test_importing_the_readers_loads_nothing_heavy():
    program = "import sys, kat_otel.readers; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not set(HEAVY) & set(done.stdout.split())
