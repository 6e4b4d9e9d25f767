"""The statistics: right against brute force, and clean on a device that forbids host access."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import array_api_compat.numpy as numpy_xp
import array_api_strict as strict_xp
import numpy as np
import pytest
from array_api_strict._array_object import Array as StrictArray
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kat_otel.ttad.robust import (
    combine_p,
    leave_one_out_median,
    masked_median,
    pooled_scale,
    t_tail,
)

DEVICE = strict_xp.Device("device1")
SYNCING = (
    "__float__",
    "__int__",
    "__bool__",
    "__index__",
    "__iter__",
    "__dlpack__",
    "__buffer__",
    "to_device",
)


@pytest.fixture
def no_host_access(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """array-api-strict on a foreign device where every pull to the host raises.

    No boolean indexing and no data-dependent shapes either: what passes here can run on CuPy
    without a synchronisation. It is necessary, and the most that can be shown without a GPU.
    """

    def forbid(name: str) -> Any:
        original = getattr(StrictArray, name)

        def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.device != strict_xp.Device("CPU_DEVICE"):
                raise AssertionError(f"{name} synchronises the device")
            return original(self, *args, **kwargs)

        return guarded

    for name in SYNCING:
        if hasattr(StrictArray, name):
            monkeypatch.setattr(StrictArray, name, forbid(name))
    strict_xp.set_array_api_strict_flags(data_dependent_shapes=False, boolean_indexing=False)
    yield strict_xp
    strict_xp.reset_array_api_strict_flags()


def on_device(array: np.ndarray[Any, Any]) -> Any:
    return strict_xp.asarray(array, device=DEVICE)


values = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.integers(0, 10**9).map(float),
)


@given(values, st.randoms(use_true_random=False))
def test_leave_one_out_median_is_the_median_of_the_others(array: Any, random: Any) -> None:
    mask = np.array([[random.random() < 0.7 for _ in row] for row in array])
    median, count = leave_one_out_median(array, mask, xp=numpy_xp)
    for i, j in np.ndindex(array.shape):
        others = [array[i, k] for k in range(array.shape[1]) if k != j and mask[i, k]]
        assert count[i, j] == len(others)
        assert median[i, j] == (np.median(others) if others else 0)


@given(values, st.randoms(use_true_random=False))
def test_masked_median_ignores_what_is_missing(array: Any, random: Any) -> None:
    mask = np.array([[random.random() < 0.7 for _ in row] for row in array])
    median, count = masked_median(array, mask, xp=numpy_xp)
    for i in range(array.shape[0]):
        there = array[i, mask[i]]
        assert count[i] == len(there)
        assert median[i] == (np.median(there) if len(there) else 0)


@given(values, st.integers(1, 4), st.randoms(use_true_random=False))
def test_pooled_scale_is_the_scaled_median_of_each_group(
    array: Any, groups: int, random: Any
) -> None:
    group = np.array([random.randrange(groups) for _ in array], dtype=np.int64)
    mask = np.array([[random.random() < 0.7 for _ in row] for row in array])
    sigma, count = pooled_scale(array - 5e8, mask, group, groups, xp=numpy_xp)
    for g in range(groups):
        mine = np.abs(array - 5e8)[group == g][mask[group == g]]
        assert count[g] == len(mine)
        assert sigma[g] == pytest.approx(np.median(mine) * 1.482602218 if len(mine) else 0)


@pytest.mark.parametrize(
    ("z", "freedom", "exact"),
    # upper tails of Student's t from its incomplete beta function
    [(1.0, 8.0, 0.173297), (2.0, 8.0, 0.040258), (4.0, 8.0, 0.001974), (10.0, 8.0, 4.24e-6)],
)
def test_t_tail_is_close_to_students_t(z: float, freedom: float, exact: float) -> None:
    assert float(t_tail(np.asarray(z), freedom, xp=numpy_xp)) == pytest.approx(exact, rel=0.2)


def test_t_tail_is_symmetric_and_falls() -> None:
    z = np.linspace(-6, 6, 101)
    p = t_tail(z, 8.0, xp=numpy_xp)
    assert (np.diff(p) <= 0).all()
    assert p[60] + p[40] == pytest.approx(1.0)


def test_fisher_finds_many_small_deviations_and_not_noise() -> None:
    rng = np.random.default_rng(7)
    everyone = np.ones((200, 2), dtype=bool)
    z = rng.standard_normal((200, 2)) + np.array([0.0, 0.7])
    p = t_tail(z, 1000.0, xp=numpy_xp)
    noise, late = combine_p(p, everyone, xp=numpy_xp)
    assert abs(noise) < 3
    assert late > 6


def test_nothing_pulls_a_value_from_the_device(no_host_access: ModuleType) -> None:
    rng = np.random.default_rng(1)
    array, mask = rng.normal(1e6, 1e4, (50, 8)), rng.random((50, 8)) < 0.9
    group = rng.integers(0, 5, 50)
    xp = no_host_access
    device = [on_device(a) for a in (array, mask, group)]
    results = [
        *leave_one_out_median(device[0], device[1], xp=xp),
        *masked_median(device[0], device[1], xp=xp),
        *pooled_scale(device[0], device[1], device[2], 5, xp=xp),
        t_tail(device[0], 8.0, xp=xp),
        combine_p(t_tail(device[0], 8.0, xp=xp), device[1], xp=xp),
    ]
    assert all(r.device == DEVICE for r in results)


def test_another_array_library_gives_the_same_verdict(dlrm: Any) -> None:
    from kat_otel.ttad import analyze
    from kat_otel.verdict import to_json

    assert to_json(analyze(dlrm, xp=strict_xp)) == to_json(analyze(dlrm, xp=numpy_xp))
