"""Numbers in sentences: the same value in the same unit is the same, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.analyzer.quantities import amount_text, numbers_in, time_text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2.1 ms", "2,100 µs"),
        ("2.10 ms", "2.1 milliseconds"),
        ("31 %", "31 percent"),
        ("31%", "31 per cent"),
        ("twice", "2 times"),
        ("4x", "4 times"),
        ("half", "50 %"),
        ("1.5 GHz", "1500 MHz"),
        ("three", "3"),
        ("1e+03 µs", "1 ms"),
        ("٣ ms", "3 ms"),
        ("2\u202fms", "2 ms"),
    ],
)
def test_what_is_the_same(text: str, same: str) -> None:
    assert numbers_in(text).quantities == numbers_in(same).quantities
    assert numbers_in(text).quantities
    assert not numbers_in(text).unread


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("2 ms", "2 µs"),
        ("2 ms", "2 times"),
        ("2 ms", "2"),
        ("-3.6 %", "+3.6 %"),
        ("2 ms", "2.1 ms"),
    ],
)
def test_what_is_not_the_same(text: str, other: str) -> None:
    assert not numbers_in(text).quantities & numbers_in(other).quantities


def test_ranks_are_told_apart_from_numbers_with_their_ranges_in_full() -> None:
    said = numbers_in("ranks 0-3, 6 and 8-9 wait 31 % of 2 ms for rank 7")
    assert said.ranks == {0, 1, 2, 3, 6, 8, 9, 7}
    assert said.quantities == numbers_in("31 %, 2 ms").quantities


def test_names_with_digits_are_names() -> None:
    assert numbers_in("E3 and K12 on H100 in bf16").names == {"E3", "K12", "H100", "bf16"}


@pytest.mark.parametrize("text", ["2.1.3", "五", "rank two", "0x1F", "Ⅻ ms 2.2.2"])
def test_what_cannot_be_read_is_said_to_be_unread(text: str) -> None:
    assert numbers_in(text).unread or numbers_in(text).names


@given(st.floats(min_value=100, max_value=1e12, allow_nan=False))
def test_a_duration_as_it_is_written_is_read_as_one_number(ns: float) -> None:
    said = numbers_in(f"it took {time_text(ns)} each")
    assert len(said.quantities) == 1
    assert not said.unread
    (one,) = said.quantities
    assert one.unit == "ns"
    assert float(one.value) == pytest.approx(ns, rel=0.006)


@given(
    st.floats(min_value=-1e9, max_value=1e9, allow_nan=False),
    st.sampled_from(["%", "MHz", "W", "Cel", "MiBy", "1", None, "{error}"]),
)
def test_an_amount_as_it_is_written_is_read_whole(value: float, unit: str | None) -> None:
    said = numbers_in(f"{amount_text(value, unit)}, expected")
    assert len(said.quantities) == 1
    assert not said.unread
