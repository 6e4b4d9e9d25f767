"""Mangled names are spelled by the C++ runtime's own function; anything else stays."""

from __future__ import annotations

import pytest

from kat_otel.instrumentation.steps.demangle import demangled


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("_Z4gemmPf", "gemm(float*)"),
        ("_ZN2at6native4copyIfEEvPT_", "void at::native::copy<float>(float*)"),
        ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
        ("_Zebra", "_Zebra"),
        ("", ""),
        ("_Z4gemm\0Pf", "_Z4gemm\0Pf"),
        ("_Z" + "N" * 100_000, "_Z" + "N" * 100_000),
        ("_Z3fooé", "_Z3fooé"),
    ],
)
def test_names(name: str, spelled: str):
    assert demangled(name) == spelled
