"""Robust statistics over dense node x rank arrays, written once against the array API.

All functions take the array namespace ``xp`` as a keyword, keep the device of their inputs,
have no data-dependent shapes and never pull a scalar to the host, so that they run on CuPy
without synchronisation. Missing values are given by a mask, never by NaN.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "MAD_TO_SIGMA",
    "combine_p",
    "leave_one_out_median",
    "masked_median",
    "pooled_scale",
    "t_tail",
]

Array = Any
"""An array of the namespace ``xp``."""

MAD_TO_SIGMA = 1.482602218505602
"""1 / Phi^-1(3/4): makes the median absolute deviation consistent with a normal sigma."""


def leave_one_out_median(values: Array, mask: Array, *, xp: Any) -> tuple[Array, Array]:
    """Median of each row without the element itself.

    Args:
        values: float64 ``(N, R)``.
        mask: bool ``(N, R)``, false where a value is missing.

    Returns:
        The median of the other valid values of the row, float64 ``(N, R)`` (0 where there is
        none), and the number of those others, int64 ``(N, R)``.
    """
    big = xp.asarray(xp.finfo(values.dtype).max, dtype=values.dtype, device=values.device)
    ordered = xp.sort(xp.where(mask, values, big), axis=1)
    counts = xp.sum(xp.astype(mask, xp.int64), axis=1, keepdims=True)
    others = xp.where(mask, counts - 1, counts)
    top = ordered.shape[1] - 1

    def pick(k: Array) -> Array:
        # the k-th of the others is the k-th or, from the element's own place on, the next; a
        # tie is no matter, as both are then the element's own value
        here = xp.take_along_axis(ordered, xp.clip(k, 0, top), axis=1)
        after = xp.take_along_axis(ordered, xp.clip(k + 1, 0, top), axis=1)
        return xp.where(xp.logical_and(mask, values <= here), after, here)

    zero = xp.zeros_like(others)
    low, high = pick(xp.maximum((others - 1) // 2, zero)), pick(others // 2)
    median = low / 2 + high / 2  # halves first: the fill must not overflow
    return xp.where(others > 0, median, xp.zeros_like(values)), others


def masked_median(values: Array, mask: Array, *, xp: Any) -> tuple[Array, Array]:
    """Median over the last axis.

    Args:
        values: float64 ``(..., M)``.
        mask: bool ``(..., M)``.

    Returns:
        The median of the valid values, float64 ``(...)`` (0 where there is none), and their
        number, int64 ``(...)``.
    """
    big = xp.asarray(xp.finfo(values.dtype).max, dtype=values.dtype, device=values.device)
    ordered = xp.sort(xp.where(mask, values, big), axis=-1)
    count = xp.sum(xp.astype(mask, xp.int64), axis=-1, keepdims=True)
    top = ordered.shape[-1] - 1

    def pick(k: Array) -> Array:
        return xp.take_along_axis(ordered, xp.clip(k, 0, top), axis=-1)

    median = pick((count - 1) // 2) / 2 + pick(count // 2) / 2
    median = xp.where(count > 0, median, xp.zeros_like(median))
    return xp.squeeze(median, axis=-1), xp.squeeze(count, axis=-1)


def pooled_scale(
    residuals: Array, mask: Array, group: Array, groups: int, *, xp: Any
) -> tuple[Array, Array]:
    """Standard deviation of each group of rows, from the median absolute residual.

    One packed int64 sort (group in the upper bits, |residual| in ns in the lower) gives the
    segmented median without a loop over groups.

    Args:
        residuals: float64 ``(N, R)``, ns, around zero.
        mask: bool ``(N, R)``.
        group: int64 ``(N,)``, from 0 to ``groups - 1``; fewer than 2^22 groups.

    Returns:
        Sigma, float64 ``(groups,)`` (0 where no residual), and the number of residuals, int64.
    """
    shift = 40
    limit = (1 << shift) - 1
    device = residuals.device
    size = xp.astype(xp.round(xp.clip(xp.abs(residuals), 0, float(limit))), xp.int64)
    owner = xp.broadcast_to(xp.reshape(group, (-1, 1)), residuals.shape)
    owner = xp.where(mask, owner, xp.full_like(owner, groups))  # the masked go behind all others
    packed = xp.sort(xp.reshape(owner * (limit + 1) + size, (-1,)))
    edges = xp.arange(groups + 1, dtype=xp.int64, device=device) * (limit + 1)
    bounds = xp.searchsorted(packed, edges, side="left")
    start, stop = bounds[:-1], bounds[1:]
    top = packed.shape[0] - 1

    def at(index: Array) -> Array:
        values = xp.take(packed, xp.clip(index, 0, top))
        return xp.astype(values % (limit + 1), xp.float64)

    count = stop - start
    median = (at((start + stop - 1) // 2) + at((start + stop) // 2)) / 2
    return xp.where(count > 0, median * MAD_TO_SIGMA, xp.zeros_like(median)), count


def t_tail(z: Array, freedom: Array | float, *, xp: Any) -> Array:
    """Upper tail probability of Student's t, by Wallace's normal approximation.

    z is mapped to a normal deviate ``u = (8v + 1)/(8v + 3) sqrt(v log(1 + z^2/v))`` (Wallace,
    Ann. Math. Stat. 30, 1959); the normal tail by Sampford's upper bound of Mills' ratio,
    ``4 phi(u) / (3u + sqrt(u^2 + 8))`` (Ann. Math. Stat. 24, 1953), never too small.

    Args:
        z: float64, any shape.
        freedom: degrees of freedom; a number or an array that broadcasts with z.
    """
    size = xp.minimum(xp.abs(z), _limit(1e9, z, xp))
    u = (8 * freedom + 1) / (8 * freedom + 3) * xp.sqrt(freedom * xp.log1p(size * size / freedom))
    phi = xp.exp(-u * u / 2) * 0.3989422804014327
    tail = 4 * phi / (3 * u + xp.sqrt(u * u + 8))
    tail = xp.minimum(xp.maximum(tail, _limit(1e-300, z, xp)), _limit(0.5, z, xp))
    return xp.where(z >= 0, tail, 1 - tail)


def combine_p(p: Array, mask: Array, *, xp: Any) -> Array:
    """Fisher's combination of independent p-values over rows, as a normal deviate per column.

    ``-2 sum log p`` is chi-square with 2n degrees of freedom; Wilson and Hilferty's cube root
    (PNAS 17, 1931) makes it normal.

    Args:
        p: float64 ``(C, R)``.
        mask: bool ``(C, R)``.

    Returns:
        Deviates, float64 ``(R,)``; 0 for a column without values.
    """
    logs = xp.where(mask, -2 * xp.log(xp.maximum(p, _limit(1e-300, p, xp))), xp.zeros_like(p))
    freedom = 2.0 * xp.sum(xp.astype(mask, xp.float64), axis=0)
    safe = xp.where(freedom > 0, freedom, xp.ones_like(freedom))
    width = 2 / (9 * safe)
    deviate = ((xp.sum(logs, axis=0) / safe) ** (1 / 3) - (1 - width)) / xp.sqrt(width)
    return xp.where(freedom > 0, deviate, xp.zeros_like(deviate))


def _limit(value: float, like: Array, xp: Any) -> Array:
    """A bound for minimum and maximum, which take a fraction of the time of clip."""
    return xp.full((), value, dtype=like.dtype, device=like.device)
