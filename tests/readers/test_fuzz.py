"""Whatever happens to the bytes of a file, reading it ends with a result, never a crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kat_otel.otlp.encode import encode_traces
from kat_otel.readers import read
from tests.readers.chrome import host, kernel, launch, trace, write
from tests.readers.test_nsys import export
from tests.readers.test_otlp_files import as_json, prefixed

STEP = [host("op", 0, 20), launch(1, 1), kernel(10, 1), launch(5, 2), kernel(16, 2)]
FORMATS = ("kineto", "kineto.gz", "nsys", "otlp proto", "otlp json")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, bytes]:
    folder: Path = tmp_path_factory.mktemp("seeds")
    plain = write(folder / "a.json", trace(STEP * 3))
    packed = write(folder / "a.json.gz", trace(STEP * 3))
    requests = list(encode_traces(read([plain]).table))
    return {
        "kineto": plain.read_bytes(),
        "kineto.gz": packed.read_bytes(),
        "nsys": export(folder / "a.sqlite").read_bytes(),
        "otlp proto": prefixed(requests * 2),
        "otlp json": b"\n".join(json.dumps(as_json(r)).encode() for r in requests * 2),
    }


def damaged(data: bytes, draw) -> bytes:
    wounds = draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8))
    changed = bytearray(data)
    for place, value in wounds:
        changed[place % len(changed)] = value
    cut = draw(st.integers(0, 2 * len(data)))  # half the time nothing is cut
    inserted = draw(st.binary(max_size=6))
    at = draw(st.integers(0, len(data)))
    return bytes(changed[:at] + inserted + changed[at:])[: cut or None]


@pytest.mark.parametrize("format_", FORMATS)
@given(data=st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_end_in_errors_or_spans(seeds, tmp_path, format_, data):
    path = tmp_path / "damaged"
    path.write_bytes(damaged(seeds[format_], data.draw))
    result = read([path])
    for error in result.errors:
        assert error.path == str(path)
        assert error.problem
        assert error.remedy
    assert (result.table.duration_ns >= 0).all()
    assert result.errors or len(result.files) == 1


@given(data=st.binary(max_size=400))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_at_all(tmp_path, data):
    path = tmp_path / "anything"
    path.write_bytes(data)
    assert isinstance(read([path]).table.start_ns, np.ndarray)
