"""Simulated noise beside real traces: near where it was fitted, told by how much where not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from kat_otel.lmdia.noise_check import Compared, compared, main, plot, statistic, table

LARGEST_FITTED = 0.25
"""The model's distribution functions go through the real ones at eleven probabilities, which are
0.25 apart at most: between them no distance can be larger."""


@pytest.fixture(scope="module")
def found(traces: Path) -> list[Compared]:
    return compared(traces)


def test_the_statistic_is_kolmogorovs_and_smirnovs() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=400), rng.normal(size=500)
    assert statistic(one, one) == 0.0
    assert statistic(one, one + 100.0) == 1.0
    assert statistic(np.array([1.0, 2.0]), np.array([1.5, 3.0])) == 0.5
    stats = pytest.importorskip("scipy.stats")
    assert statistic(one, two) == pytest.approx(float(stats.ks_2samp(one, two).statistic))


def test_simulated_times_are_near_the_traces_they_were_fitted_to(found: list[Compared]) -> None:
    fitted = [c for c in found if not c.held_out]
    assert len(fitted) == 13
    sys.stdout.write(table(found))  # shown by pytest -s or -rP
    far = [(c.name, c.distance) for c in fitted if c.distance > LARGEST_FITTED]
    assert far == []
    within = sum(c.distance <= c.critical for c in fitted)
    assert within >= len(fitted) - 2


def test_a_trace_that_was_held_out_is_farther_and_shown(
    found: list[Compared], traces: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    held_out = [c for c in found if c.held_out]
    assert {c.name.partition(",")[0] for c in held_out} == {"gap", "call", "kernel"}
    pytest.importorskip("matplotlib")
    image = tmp_path / "noise.svg"
    main([str(traces), "--plot", str(image)])
    said = capsys.readouterr().out
    assert said.count("held out") == len(held_out)
    assert image.read_text().startswith("<?xml")
    plot(found[:1], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000
