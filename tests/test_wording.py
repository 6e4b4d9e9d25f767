from __future__ import annotations

import pytest

from kat_otel.wording import rank_list, ranks_text


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([], ""),
        ([7], "7"),
        ([0, 1, 2, 3, 4, 5, 6], "0-6"),
        ([6, 7, 0, 3], "0, 3 and 6-7"),
        (list(range(0, 40, 2)), "0, 2, 4, 6, 8, 10 and 14 more"),
    ],
)
def test_ranks_are_said_as_ranges_and_a_scattered_fleet_as_a_count(
    ranks: list[int], text: str
) -> None:
    assert rank_list(ranks) == text


def test_one_rank_is_not_called_ranks() -> None:
    assert [ranks_text(some) for some in ([], [4], [4, 4], [4, 5])] == [
        "no rank",
        "rank 4",
        "rank 4",
        "ranks 4-5",
    ]
