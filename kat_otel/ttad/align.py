"""Which spans of different ranks are the same work: identity = stream, kernel family, ordinal.

The GPU work of each rank is a sequence per stream. Ranks of one symmetry class mostly run
equal sequences, so equal ones are matched as a whole and only the distinct ones are aligned,
as sequences, to the commonest. What stays unmatched is counted, never guessed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics, family
from kat_otel.per_string import PerString, text_hash
from kat_otel.spans import SpanTable, StringTable
from kat_otel.ttad.lanes import Lanes, alike, lanes

__all__ = ["PLACES", "TEXT_HASHES", "Alignment", "align", "place"]

_MISSING = -1
_MAX_DIFF = 6000
"""Longest stretch aligned as a sequence; beyond it a quadratic method is no longer bounded."""
_ENOUGH = 3
"""So many ranks can outvote one of them."""
PLACES = 61
"""Ways to turn a hash by its rank's place."""
_DIFFERENT = 0.1
"""Share of the nodes whose launch differs between replicas that do different amounts of work."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The GPU work of one step as a dense array node x rank.

    Attributes:
        ranks: the ranks, int32 ``(R,)``, ascending.
        rows: row of the table for each node and rank, int64 ``(N, R)``, -1 where absent.
        stream: stream class of each node, int32 ``(N,)``; equal numbers run in order.
        family: index into ``families``, int32 ``(N,)``.
        semantics: :class:`Semantics` of each node, uint8 ``(N,)``.
        families: names of the kernel families.
        shape: hash of each node's grid and block, of all ranks where they differ, int64 ``(N,)``:
            the covariates of its work.
        peers: symmetry class of each rank, int32 ``(R,)``.
        matched: spans that have a counterpart on another rank (all spans if R is 1).
        total: GPU spans of the step.
    """

    ranks: NDArray[np.int32]
    rows: NDArray[np.int64]
    stream: NDArray[np.int32]
    family: NDArray[np.int32]
    semantics: NDArray[np.uint8]
    families: tuple[str, ...]
    shape: NDArray[np.int64]
    peers: NDArray[np.int32]
    matched: int
    total: int

    @property
    def names(self) -> list[str]:
        """Kernel family of each node by name."""
        index: list[int] = self.family.tolist()
        return [self.families[f] for f in index]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the rank has the node, bool ``(N, R)``."""
        return self.rows >= 0

    def signature(self) -> tuple[bytes, bytes]:
        """Returns what two steps share when their nodes mean the same work of the same size."""
        return self.stream.tobytes(), (self._hashes() ^ self.shape).tobytes()

    def sequence(self) -> tuple[bytes, bytes]:
        """Returns what two steps share when their nodes mean the same work of whatever size."""
        return self.stream.tobytes(), self._hashes().tobytes()

    def _hashes(self) -> NDArray[np.int64]:
        """Hash of each node's family, int64 ``(N,)``."""
        hashes = np.array([_family_hash(name) for name in self.families], dtype=np.int64)
        return hashes[self.family] if len(self.family) else hashes[:0]


@lru_cache(maxsize=65536)
def _family_hash(name: str) -> int:
    return text_hash(name)  # not hash(): history outlives the process


def align(table: SpanTable, meaning: NDArray[np.uint8]) -> Alignment:
    """Aligns the GPU work of one step.

    Args:
        table: spans of one step of one instance, any number of ranks.
        meaning: collective semantics of every span, uint8 ``(n,)``, from ``kernels.classify``.
    """
    found = lanes(table)
    name = table.name[found.rows]
    family_of, families = _families(table.strings, name)
    tokens = family_of[name]
    ranks = len(found.ranks)
    if ranks and alike(tokens, found.begin, found.stream, found.first):
        nodes = len(found.rows) // ranks
        rows = np.ascontiguousarray(found.rows.reshape(ranks, nodes).T)
        lane = found.begin[: int(found.first[1]) + 1]
        stream = np.repeat(np.arange(len(lane) - 1, dtype=np.int32), lane[1:] - lane[:-1])
        node_family, matched = tokens[:nodes], nodes * ranks
    else:
        rows, stream, node_family = _align_lanes(found, tokens)
        rows, old = _paired(table, meaning, rows)
        stream, node_family = stream[old], node_family[old]
        count = (rows >= 0).sum(axis=1)
        matched = int(count[count > 1].sum()) if ranks > 1 else int(count.sum())
    some = _some_row(rows)
    return Alignment(
        ranks=found.ranks,
        rows=rows,
        stream=stream,
        family=node_family,
        semantics=meaning[some],
        families=families,
        shape=_launch_shapes(table, rows, some),
        peers=_peers(table, found.ranks, rows, whole=matched == rows.size),
        matched=matched,
        total=len(found.rows),
    )


def _align_lanes(
    found: Lanes, tokens: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Rows ``(N, R)``, stream and family of the nodes where ranks run different sequences."""
    each: list[dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]]] = []
    begin: list[int] = found.begin.tolist()
    for low, high in pairwise(found.first.tolist()):
        cuts = zip(found.stream[low:high].tolist(), pairwise(begin[low : high + 1]), strict=True)
        each.append({stream: (found.rows[a:b], tokens[a:b]) for stream, (a, b) in cuts})
    reference = _commonest(each)
    columns = [_match_streams(each[reference], lane) for lane in each]
    node_rows: list[NDArray[np.int64]] = []
    node_family: list[NDArray[np.int32]] = []
    node_stream: list[NDArray[np.int32]] = []
    for stream_class in range(max((max(c, default=-1) for c in columns), default=-1) + 1):
        sequences = [c.get(stream_class) for c in columns]
        merged_rows, merged_family = _align_stream(sequences, reference)
        node_rows.append(merged_rows)
        node_family.append(merged_family)
        node_stream.append(np.full(len(merged_family), stream_class, np.int32))
    rows = np.concatenate([np.empty((0, len(each)), np.int64), *node_rows])
    stream = np.concatenate([np.empty(0, np.int32), *node_stream])
    return rows, stream, np.concatenate([np.empty(0, np.int32), *node_family])


def _paired(
    table: SpanTable, meaning: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Brings the two sides of a transfer into one node: sent at a stage's end, received at a start.

    Stages run the same kernels, so that order alone puts the sides into different nodes. Where
    communicator and sequence number are known, they decide.

    Returns:
        Rows ``(M, R)``, and the old node whose stream and family each of the ``M`` has.
    """
    old = np.arange(len(rows))
    safe = np.maximum(rows, 0)
    sides = (rows >= 0) & (meaning[safe] == Semantics.PAIRWISE.value)
    sides &= (table.group[safe] > 0) & (table.sequence[safe] >= 0)
    node, column = np.nonzero(sides)
    if not len(node):
        return rows, old
    mine = rows[node, column]
    keys = np.stack([table.group[mine].astype(np.int64), table.sequence[mine]], axis=1)
    _, key = np.unique(keys, axis=0, return_inverse=True)
    key = key.reshape(-1)
    first = np.full(int(key.max()) + 1, len(rows), np.int64)
    np.minimum.at(first, key, node)
    if (first[key] == node).all():  # order has put them together already
        return rows, old
    met = np.full((len(first), rows.shape[1]), _MISSING, np.int64)
    met[key, column] = mine
    rows = rows.copy()
    rows[node, column] = _MISSING
    rows, old = np.insert(rows, first, met, axis=0), np.insert(old, first, first)
    left = (rows >= 0).any(axis=1)
    return rows[left], old[left]


def _some_row(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A row of each node, whichever rank's."""
    if rows.shape[1] == 0:
        return np.empty(0, np.int64)
    some = rows[:, 0].copy()
    for column in range(1, rows.shape[1]):
        if (some >= 0).all():
            break
        np.copyto(some, rows[:, column], where=some < 0)
    return some


@lru_cache(maxsize=16)
def _numbered(names: tuple[str, ...]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Family number of each name, and the families in order of their first name."""
    index: dict[str, int] = {}
    numbers = [index.setdefault(family(name), len(index)) for name in names]
    return np.array(numbers, np.int32), tuple(index)


def _families(
    strings: StringTable, name: NDArray[np.int32]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Family of every string that is the name of one of the spans, by way of distinct ones only."""
    used = np.flatnonzero(np.bincount(name, minlength=len(strings)))
    numbers, families = _numbered(tuple([strings[i] for i in used.tolist()]))
    of_name = np.zeros(len(strings), np.int32)
    of_name[used] = numbers
    return of_name, families


TEXT_HASHES = PerString(text_hash)
"""Of launch grids and blocks."""


def _launch_shapes(
    table: SpanTable, rows: NDArray[np.int64], some: NDArray[np.int64]
) -> NDArray[np.int64]:
    shape = _hashed(table, some)
    there = np.where(rows >= 0, rows, some[:, None])
    grid, block = table.grid[there], table.block[there]
    differ = ((grid != grid[:, :1]) | (block != block[:, :1])).any(axis=1)
    if differ.any():  # each rank's own, by its place
        each = _hashed(table, there[differ])
        turn = np.array([1 + at % PLACES for at in range(each.shape[1])], np.int64)
        turned = np.left_shift(each, turn) ^ np.right_shift(each, 63 - turn)
        shape[differ] = np.bitwise_xor.reduce(turned, axis=1)
    return shape


def _hashed(table: SpanTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    grid = TEXT_HASHES.of(table.strings, table.grid[rows])
    return grid ^ (TEXT_HASHES.of(table.strings, table.block[rows]) << np.int64(1))


def _commonest(lanes: list[dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]]]) -> int:
    """The rank whose whole work most ranks share; among equals the one of median length."""
    keys = [tuple(sorted(t.tobytes() for _, t in lane.values())) for lane in lanes]
    counted = Counter(keys)
    votes = [counted[key] for key in keys]
    if not votes:
        return 0
    lengths = np.array([sum(len(r) for r, _ in lane.values()) for lane in lanes])
    middle = np.abs(lengths - np.median(lengths))
    return min(range(len(keys)), key=lambda i: (-votes[i], middle[i], i))


def _match_streams(
    reference: dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]],
    lane: dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]],
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Maps a rank's streams to the reference's by what runs on them; ids differ between ranks."""
    bags = [np.bincount(t) for _, t in reference.values()]
    ids = list(reference)
    scored: list[tuple[int, bool, int, int]] = []
    for stream, (_, tokens) in lane.items():
        mine = np.bincount(tokens)
        for at, bag in enumerate(bags):
            width = min(len(bag), len(mine))
            shared = int(np.minimum(bag[:width], mine[:width]).sum())
            scored.append((shared, stream == ids[at], -at, stream))
    result: dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]] = {}
    used: set[int] = set()
    for shared, _, minus_at, stream in sorted(scored, reverse=True):
        if shared and -minus_at not in result and stream not in used:
            result[-minus_at] = lane[stream]
            used.add(stream)
    spare = len(ids)
    for stream, sequence in lane.items():  # streams the reference has not: own classes
        if stream not in used:
            result[spare] = sequence
            spare += 1
    return result


def _align_stream(
    sequences: list[tuple[NDArray[np.int64], NDArray[np.int32]] | None], reference: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Star alignment of one stream: everyone against the reference rank's sequence.

    Returns:
        Rows int64 ``(N, R)`` and families int32 ``(N,)`` in the order of execution.
    """
    base = sequences[reference]
    if base is None:
        base = max((s for s in sequences if s is not None), key=lambda s: len(s[1]))
    target = base[1]
    known: dict[bytes, NDArray[np.int64]] = {}
    places: list[NDArray[np.int64]] = []
    extra: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for rank, sequence in enumerate(sequences):
        if sequence is None:
            places.append(np.empty(0, np.int64))
            continue
        key = sequence[1].tobytes()
        if key not in known:
            known[key] = place(target, sequence[1])
        spot = known[key]
        places.append(spot)
        ordinal: dict[tuple[int, int], int] = {}
        gaps = np.maximum.accumulate(spot) + 1
        for at in np.flatnonzero(spot < 0).tolist():  # few: work that only some ranks have
            gap, token = int(gaps[at]), int(sequence[1][at])
            nth = ordinal[gap, token] = ordinal.get((gap, token), -1) + 1
            extra.setdefault((gap, token, nth), []).append((rank, int(sequence[0][at])))
    core = np.full((len(target), len(sequences)), _MISSING, np.int64)
    for rank, sequence in enumerate(sequences):
        if sequence is not None:
            hit = places[rank] >= 0
            core[places[rank][hit], rank] = sequence[0][hit]
    if not extra:
        return core, target
    keys = sorted(extra)
    added = np.full((len(keys), len(sequences)), _MISSING, np.int64)
    for at, one in enumerate(keys):
        for rank, row in extra[one]:
            added[at, rank] = row
    at_gap = np.array([k[0] for k in keys])
    tokens = np.array([k[1] for k in keys], np.int32)
    return np.insert(core, at_gap, added, axis=0), np.insert(target, at_gap, tokens)


def place(target: NDArray[np.int32], own: NDArray[np.int32]) -> NDArray[np.int64]:
    """Aligns two sequences: position in ``target`` of each element of ``own``, or -1."""
    spot = np.full(len(own), _MISSING, np.int64)
    shortest = min(len(own), len(target))
    same = own[:shortest] == target[:shortest]
    head = shortest if same.all() else int(np.argmin(same))
    spot[:head] = np.arange(head)
    left = shortest - head
    same = own[len(own) - left :][::-1] == target[len(target) - left :][::-1]
    tail = left if same.all() else int(np.argmin(same))
    spot[len(own) - tail :] = np.arange(len(target) - tail, len(target))
    a, b = target[head : len(target) - tail], own[head : len(own) - tail]
    if len(a) and len(b) and max(len(a), len(b)) <= _MAX_DIFF:
        matcher = SequenceMatcher(None, a.tolist(), b.tolist(), autojunk=False)
        for block in matcher.get_matching_blocks():
            spot[head + block.b : head + block.b + block.size] = head + np.arange(
                block.a, block.a + block.size
            )
    return spot


def _replicas(
    table: SpanTable, ranks: NDArray[np.int32], rows: NDArray[np.int64]
) -> list[int] | None:
    """The data-parallel replica of each rank if they have batches of their own, else None.

    Replicas whose launches differ do different amounts of work: then only the ranks within one
    are peers, if they are enough to outvote one.
    """
    replica = {r.rank: r.dp for r in table.resources}
    of = [replica[rank] for rank in ranks.tolist()]
    fewest = min(Counter(of).values(), default=0)
    if len(set(of)) < 2 or fewest < _ENOUGH:
        return None
    whole = (rows >= 0).all(axis=1)
    grid = table.grid[rows[whole]]
    differ = (grid != grid[:, :1]).any(axis=1)
    return of if len(differ) and differ.mean() > _DIFFERENT else None


def _peers(
    table: SpanTable, ranks: NDArray[np.int32], rows: NDArray[np.int64], *, whole: bool
) -> NDArray[np.int32]:
    """Symmetry classes: the same pipeline stage where known, else mostly the same work.

    Args:
        table: for the stages.
        ranks: of the columns.
        rows: ``(N, R)``.
        whole: every rank has every node.
    """
    stage = {r.rank: r.pp for r in table.resources}
    stages = [stage[rank] for rank in ranks.tolist()]
    replicas = _replicas(table, ranks, rows)
    if len(set(stages)) > 1 or replicas is not None:
        places = list(zip(stages, replicas or stages, strict=True))
        known = sorted(set(places))
        return np.array([known.index(one) for one in places], np.int32)
    if whole:
        return np.zeros(len(ranks), np.int32)
    present = rows >= 0
    packed = np.packbits(present, axis=0)  # ranks that run the same are looked at once
    _, one_of, who = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    distinct = present[:, one_of].astype(np.float64)
    own = distinct.sum(axis=0)
    shared = distinct.T @ distinct
    alike_ = (shared >= 0.5 * np.minimum(own[:, None], own[None, :]))[:, who.reshape(-1)]
    classes = np.full(len(ranks), -1, np.int32)
    count = 0
    for rank in range(len(ranks)):
        if classes[rank] < 0:
            classes[(classes < 0) & alike_[who.reshape(-1)[rank]]] = count
            count += 1
    return classes
