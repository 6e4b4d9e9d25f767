"""Ranks of files that do not say theirs, and of files that say the same.

What a file says counts; else its name; else its place in the order. Every guess is
told in a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from kat_otel.spans import UNKNOWN, Resource

__all__ = ["RankClaim", "rank_in_file_name", "settle_ranks"]

_IN_NAME = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:^|[^a-z])(?:global[_-]?)?rank[_\-. ]?(\d{1,6})(?!\d)",
        r"(?:^|[^a-z])worker[_\-. ]?(\d{1,6})(?!\d)",
        r"(?:^|[^a-z])(?:tp|dp|gpu|device|process)[_\-. ]?(\d{1,6})(?![a-z0-9])",
        r"(?:^|[^a-z0-9])r(\d{1,6})(?![a-z0-9])",
        r"^(\d{1,6})(?=\.)",
    )
)


@dataclass(frozen=True, slots=True)
class RankClaim:
    """What a file says of its ranks: its resources, and of each whether its rank is said."""

    file: str
    resources: tuple[Resource, ...]
    known: tuple[bool, ...]


def rank_in_file_name(name: str) -> int | None:
    """Returns the rank that a name tells (``trace_rank3.json``, ``worker3.x.json``), if any."""
    for pattern in _IN_NAME:
        if match := pattern.search(name):
            return int(match[1])
    return None


def settle_ranks(claims: Sequence[RankClaim]) -> tuple[list[tuple[Resource, ...]], list[str]]:
    """Returns the resources of every file with ranks settled, and notes on what was guessed."""
    notes: list[str] = []
    settled = [list(claim.resources) for claim in claims]
    taken = {
        resource.rank
        for claim in claims
        for resource, sure in zip(claim.resources, claim.known, strict=True)
        if sure
    }
    unsure = [i for i, claim in enumerate(claims) if not all(claim.known)]
    for i in unsure:
        if len(settled[i]) == 1:
            _settle_one(settled[i], taken, notes)
        else:
            _settle_devices(settled[i], taken, notes, alone=len(unsure) == 1)
    _note_doubles(settled, notes)
    return [tuple(resources) for resources in settled], notes


def _settle_one(resources: list[Resource], taken: set[int], notes: list[str]) -> None:
    name = PurePath(resources[0].source).name
    rank = rank_in_file_name(name)
    if rank is not None and rank not in taken:
        notes.append(f"{name} does not say its rank: rank {rank} is taken from the file name")
    else:
        rank = next(r for r in range(len(taken) + 1) if r not in taken)
        notes.append(f"{name} does not say its rank, nor does its name: numbered {rank} in order")
    taken.add(rank)
    resources[0] = replace(resources[0], rank=rank)


def _settle_devices(
    resources: list[Resource], taken: set[int], notes: list[str], *, alone: bool
) -> None:
    """Several devices in one file: the rank is the device, unless another file has it already."""
    name = PurePath(resources[0].source).name
    devices = [r.device for r in resources]
    clash = bool(taken.intersection(devices))
    shift = max(taken, default=-1) + 1 if clash else 0
    for place, resource in enumerate(resources):
        rank = shift + (place if clash or resource.device == UNKNOWN else resource.device)
        resources[place] = replace(resource, rank=rank)
        taken.add(rank)
    if clash:
        notes.append(
            f"{name} does not say its ranks and its devices are ranks of another file already: "
            f"numbered {shift} to {shift + len(resources) - 1} in order"
        )
    elif not alone:
        notes.append(f"{name} does not say its ranks: the device numbers stand for them")


def _note_doubles(settled: Sequence[Sequence[Resource]], notes: list[str]) -> None:
    files: Counter[int] = Counter()
    for resources in settled:
        files.update({r.rank for r in resources})
    for rank, count in sorted(files.items()):
        if count > 1:
            notes.append(
                f"{count} files say that they are rank {rank}: read as windows of one worker"
            )
