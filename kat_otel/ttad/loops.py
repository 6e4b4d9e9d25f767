"""What the compiled loops of this folder share: their array types, and arrays fit for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import inline, njit

__all__ = ["in_order", "low_tenth", "median", "median_of", "plain", "select"]


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the array, or a copy if it is read-only or not contiguous: loops take plain ones."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy()


@inline
def in_order(values: NDArray[Any], begin: int, end: int) -> bool:
    """Returns whether the values of a stretch never fall."""
    for at in range(begin + 1, end):  # noqa: SIM110 - a loop is what compiles
        if values[at] < values[at - 1]:
            return False
    return True


@inline
def select(values: NDArray[np.float64], count: int, k: int) -> float:
    """Returns the k-th smallest of the first ``count`` values, which it reorders (Hoare, 1961)."""
    low, high = 0, count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@inline
def median(values: NDArray[np.float64], count: int) -> float:
    """Returns the median of the first ``count`` values (at least one), which it reorders."""
    high = select(values, count, count // 2)
    if count % 2:
        return high
    low = values[0]
    for at in range(1, count // 2):  # what is left of the upper middle is not greater
        low = max(low, values[at])
    return (low + high) / 2


@njit("float64(float64[::1])")
def median_of(values: NDArray[np.float64]) -> float:
    """Returns the median of at least one value, as numpy.median has it, but in a tenth the time."""
    return median(values.copy(), len(values))


@inline
def low_tenth(values: NDArray[np.float64], count: int) -> float:
    """Returns the 0.1 quantile of the first ``count`` values, as numpy.quantile has it."""
    virtual = (count - 1) * 0.1
    k = int(virtual)
    share = virtual - k
    low = select(values, count, k)
    if share == 0.0:
        return low
    high = values[k + 1]  # what is right of the k-th is not smaller
    for at in range(k + 2, count):
        high = min(high, values[at])
    width = high - low
    return high - width * (1 - share) if share >= 0.5 else low + width * share
