"""A file's own word counts, then its name, then its place; guesses are told."""

from __future__ import annotations

import pytest

from kat_otel.readers.ranks import RankClaim, rank_in_file_name, settle_ranks
from kat_otel.spans import UNKNOWN, Resource


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("worker3_step_12.1694128201557.pt.trace.json.gz", 3),
        ("trace_rank-17.json", 17),
        ("rank_0.json.gz", 0),
        ("1775078550-TP-2.trace.json.gz", 2),
        ("trace_r12.json", 12),
        ("5.json", 5),
        ("eager_trace.json.gz", None),
        ("h100_2gpu_1s.sqlite", None),
    ],
)
def test_rank_in_file_name(name, rank):
    assert rank_in_file_name(name) == rank


def claim(file: str, *ranks: int, devices: tuple[int, ...] = ()) -> RankClaim:
    devices = devices or (UNKNOWN,) * len(ranks)
    resources = tuple(
        Resource(rank=rank, device=device, source=file)
        for rank, device in zip(ranks, devices, strict=True)
    )
    return RankClaim(file, resources, tuple(rank != UNKNOWN for rank in ranks))


def ranks_of(*claims: RankClaim) -> tuple[list[list[int]], str]:
    settled, notes = settle_ranks(claims)
    return [[r.rank for r in resources] for resources in settled], "\n".join(notes)


def test_what_files_say_is_kept_without_a_note():
    assert ranks_of(claim("b.json", 5), claim("a.json", 2)) == ([[5], [2]], "")


def test_a_silent_file_is_named_by_its_name_and_that_is_said():
    ranks, notes = ranks_of(claim("worker3.json", UNKNOWN), claim("worker1.json", 1))
    assert ranks == [[3], [1]]
    assert "rank 3 is taken from the file name" in notes


def test_a_silent_name_gets_the_next_free_number():
    ranks, notes = ranks_of(claim("x.json", UNKNOWN), claim("y.json", 0))
    assert ranks == [[1], [0]]
    assert "numbered 1 in order" in notes


def test_devices_of_one_export_are_its_ranks():
    assert ranks_of(claim("a.sqlite", UNKNOWN, UNKNOWN, devices=(0, 1))) == ([[0, 1]], "")


def test_a_second_machines_devices_are_numbered_on():
    a = claim("a.sqlite", UNKNOWN, UNKNOWN, devices=(0, 1))
    b = claim("b.sqlite", UNKNOWN, UNKNOWN, devices=(0, 1))
    ranks, notes = ranks_of(a, b)
    assert ranks == [[0, 1], [2, 3]]
    assert "numbered 2 to 3" in notes


def test_two_files_of_one_rank_are_said_to_be_so():
    _, notes = ranks_of(claim("a.json", 0), claim("b.json", 0))
    assert "2 files say that they are rank 0" in notes
