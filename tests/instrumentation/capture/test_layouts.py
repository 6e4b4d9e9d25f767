"""Sizes of records by version of CUPTI, as NVIDIA's headers have them."""

from __future__ import annotations

import pytest

from kat_otel.instrumentation.capture.layouts import NAMES, Layout
from tests.instrumentation import needs

needs.compiler()

# kernel, memcpy, memset, sync, overhead, graph
HEADERS = {
    18: (208, 88, 88, 40, 40, 48),
    22: (208, 88, 88, 40, 56, 56),
    27: (208, 96, 88, 56, 56, 56),
    130000: (216, 96, 88, 56, 56, 56),
    130200: (224, 96, 88, 56, 56, 56),
    130500: (248, 112, 104, 56, 56, 56),
}


@pytest.mark.parametrize("version", HEADERS)
def test_sizes_are_those_of_the_headers(version: int) -> None:
    layout = Layout.of(version)
    assert layout is not None
    assert layout.taken == version
    assert tuple(layout.sizes[kind] for kind in (10, 1, 2, 38, 17, 51)) == HEADERS[version]
    assert layout.sizes[3] == layout.sizes[10]
    assert layout.note == ""


@pytest.mark.parametrize(
    ("version", "taken"), [(20, 18), (28, 27), (130100, 130000), (130301, 130200)]
)
def test_between_two_versions_the_older_one_is_taken(version: int, taken: int) -> None:
    layout = Layout.of(version)
    assert layout is not None
    assert (layout.taken, layout.note) == (taken, "")


def test_a_version_from_the_future_is_noted() -> None:
    layout = Layout.of(150000)
    assert layout is not None
    assert layout.taken == max(NAMES)
    assert "newer than this KAT-OTel knows" in layout.note


def test_a_version_before_cuda_12_1_has_no_layout() -> None:
    assert Layout.of(17) is None
