"""What says that nobody stands out must never hide anybody who does."""

from __future__ import annotations

import array_api_compat.numpy as numpy_xp
import numpy as np
import pytest

from kat_otel.ttad.lateness import Lateness
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.suspects import _late_cells

RNG = np.random.default_rng(5)


def lateness_of(z: np.ndarray, *, late: float = 0.5) -> Lateness:
    judged = RNG.random(z.shape) < 0.9
    z = np.where(judged, z, 0.0)
    return Lateness(
        excess=1_000 * z,
        expected=np.full(z.shape, 5_000.0),
        z=z,
        counts=judged & (z > 0) & (RNG.random(z.shape) < late),
        last=judged,
        judged=judged,
        tests=np.full(z.shape, float(max(judged.sum(), 1))),
        entry_gap=None,
        _freedom=RNG.uniform(2, 8, z.shape),
        _settings=Settings(),
        _xp=numpy_xp,
    )


@pytest.mark.parametrize("shape", [(1, 2), (80, 2), (80, 8), (20, 64)])
def test_whoever_is_beyond_chance_stands_out(shape: tuple[int, int]) -> None:
    found = quiet = 0
    for _ in range(400):
        z = RNG.standard_normal(shape)
        z[:, RNG.integers(shape[1])] += RNG.choice([0.0, 0.3, 1.0])
        z[RNG.integers(shape[0]), RNG.integers(shape[1])] += RNG.choice([0.0, 5.0, 20.0, 60.0])
        late = lateness_of(z)
        tests = max(int(late.judged.sum()), 1)
        rate = Settings().false_alarm_rate
        alone = late.counts & (late.cell_p * tests <= rate)
        flagged = (late.rank_z > 0) & (late.rank_p * late.rank_p.size <= rate)
        there = bool((alone | (late.counts & flagged & (late.z >= 1.0))).any())
        assert late.stands_out or not there
        assert bool(_late_cells(late, Settings()).any()) == there
        found, quiet = found + there, quiet + (not late.stands_out)
    assert found
    assert quiet, "it would be of no use"


def test_nobody_is_there_to_stand_out() -> None:
    assert not lateness_of(np.zeros((0, 4))).stands_out
