"""The compiled statistics are those of the array library, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.ttad import loops, robust
from kat_otel.ttad.robust_loops import TWINS


@st.composite
def masked(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Times in ns, many of them equal, some missing; of one column to several dozen."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    most = draw(st.sampled_from([3, 100, 10**9]))
    values = rng.integers(-most, most, shape) / draw(st.sampled_from([1, 2, 3]))
    return values, rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))


@pytest.mark.parametrize("function", [robust.leave_one_out_median, robust.masked_median])
@given(given_=masked())
@settings(max_examples=150, deadline=None)
def test_medians_are_equal(function: Callable[..., Any], given_: Any) -> None:
    for one, other in zip(TWINS[function](*given_, xp=xp), function(*given_, xp=xp), strict=True):
        np.testing.assert_array_equal(one, other)


@given(given_=masked(), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_scales_are_equal(given_: Any, seed: int) -> None:
    group = np.random.default_rng(seed).integers(0, 4, len(given_[0]))
    twin = TWINS[robust.pooled_scale](*given_, group, 4, xp=xp)
    for one, other in zip(twin, robust.pooled_scale(*given_, group, 4, xp=xp), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50), st.data())
@settings(max_examples=150, deadline=None)
def test_selection_finds_what_sorting_finds(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values) - 1))
    assert loops.select(np.array(values), len(values), k) == sorted(values)[k]
    assert loops.median(np.array(values), len(values)) == np.median(values)
    assert loops.low_tenth(np.array(values), len(values)) == np.quantile(values, 0.1)
