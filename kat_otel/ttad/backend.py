"""Where the statistics run: the pure functions of ``robust`` on an array library's device.

The one place that copies between host and device. Align, walk and verdict stay on the host.
NumPy's arrays go to the compiled twins of the functions where there are any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.robust_loops import TWINS

__all__ = ["run"]

_CPU = "array_api_compat.numpy"

Host = NDArray[Any]


def run(function: Callable[..., Any], *inputs: Host | float | int, xp: Any) -> tuple[Host, ...]:
    """Calls ``function(*inputs, xp=xp)`` on ``xp``'s device and returns host arrays.

    Args:
        function: of :mod:`kat_otel.ttad.robust`.
        inputs: host arrays, copied to the device, and plain numbers, passed as they are.
        xp: array API namespace: ``array_api_compat.numpy``, ``array_api_compat.cupy``, ...

    Returns:
        The results as NumPy arrays, always as a tuple.
    """
    twin = TWINS.get(function) if xp.__name__ == _CPU else None
    if twin is not None:
        return cast("tuple[Host, ...]", twin(*inputs, xp=xp))
    moved = [xp.asarray(i) if isinstance(i, np.ndarray) else i for i in inputs]
    results = function(*moved, xp=xp)
    several = cast("tuple[Any, ...]", results if isinstance(results, tuple) else (results,))
    return tuple(_to_host(result) for result in several)


def _to_host(array: Any) -> Host:
    return np.asarray(array.get() if hasattr(array, "get") else array)  # CuPy copies by get()
