"""From the spans of a worker's step to its digest, by NumPy: any table, with or without a compiler.

Workers make the same bytes by ``instrumentation/native/digest.c``, which the tests hold to this.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.digest.form import COPY_DIRECTIONS, MAX_POSITIONS, WHAT, Digest, class_hash
from kat_otel.digest.wire import encode
from kat_otel.kernels import Semantics, family, semantics
from kat_otel.per_string import PerString
from kat_otel.spans import NO_PARENT, SpanKind, SpanTable, StringTable

__all__ = ["NAMES_EVERY", "digest_of", "grid_size", "names_text", "told", "with_digests"]

Int64 = NDArray[np.int64]
NAMES_EVERY = 64
"""Steps between two sendings of the names; the first step sends them too."""

_NAME_BYTES = 120
_MOST_BLOCKS: Final = 1 << 40  # of a kernel: a million of them still fit in 63 bits
# A number compared with a column is a number: NumPy looks an enum member over at every comparison.
_KERNEL, _MEMCPY, _MEMSET = int(SpanKind.KERNEL), int(SpanKind.MEMCPY), int(SpanKind.MEMSET)
_COLLECTIVE, _LAUNCH, _SYNC = int(SpanKind.COLLECTIVE), int(SpanKind.LAUNCH), int(SpanKind.SYNC)
_WORKER_STEP = int(SpanKind.WORKER_STEP)


def digest_of(table: SpanTable, rows: NDArray[Any] | None = None) -> Digest:
    """Makes the digest of one rank's step.

    Args:
        table: spans with their parents (launches of the GPU work, if they were recorded).
        rows: those of the rank and step, bool mask or row numbers; all if None.

    Raises:
        ValueError: no rows.
    """
    chosen = np.arange(len(table)) if rows is None else np.arange(len(table))[rows]
    if not len(chosen):
        raise ValueError("a digest wants the spans of one rank and step, there are none")
    kinds = table.kind[chosen]
    steps = chosen[kinds == _WORKER_STEP]
    gpu = chosen[kinds >= _KERNEL]
    bounds = steps if len(steps) else chosen
    begin = int(table.start_ns[bounds].min())
    launched = _launched(table, gpu)
    start = table.start_ns[gpu]
    # The host's order is the program's, the same on all ranks; nodes of a graph go by start.
    known = bool((launched >= 0).all())
    by = launched if known else start
    # GPU work mostly stands in the order of its launches already; equal ones go by start.
    if not bool((by[1:] > by[:-1]).all()):
        order = np.lexsort((start, launched)) if known else np.argsort(start, kind="stable")
        gpu, launched = gpu[order], launched[order]
    kernels = _Names(table, gpu)
    collective = kernels.semantics > 0
    met = gpu[collective]
    whats, what = _whats(table, met, kernels)
    copy = table.kind[gpu] == _MEMCPY
    work = ~collective & ~copy
    cells: Any = _cells(
        table.duration_ns[gpu[work]], kernels.kind[work], kernels.hashes, _cuts(collective)[work]
    )
    copies: Any = _copies(table, gpu[copy], kernels.directions[copy])
    gaps: Any = _gaps(table, chosen[kinds == _LAUNCH], launched[collective])
    sequence = np.ascontiguousarray(kernels.hashes[kernels.kind[collective]].astype("<u4"))
    lead = np.where(launched >= 0, table.start_ns[gpu] - launched, -1)[collective]
    resource = table.resources[int(table.resource[chosen[0]])]
    said = table.attributes.get(int(steps[0])) if len(steps) else None
    dropped = said.get(semconv.DROPPED_COUNT) if said else None
    return Digest(
        start_ns=begin,
        duration_ns=int((table.start_ns[bounds] + table.duration_ns[bounds]).max()) - begin,
        ends=np.maximum(table.start_ns[met] + table.duration_ns[met] - begin, 0),
        spent=table.duration_ns[met],
        lead=lead,
        what=what,
        whats=whats,
        order=class_hash(sequence.tobytes().hex()),
        resolution_ns=resource.resolution_ns,
        kernels=int(work.sum()),
        dropped=dropped if isinstance(dropped, int) else 0,
        blocks=_blocks(table, gpu[work]),
        sync_ns=int(table.duration_ns[chosen[kinds == _SYNC]].sum()),
        names=kernels.texts,
        **cells,
        **copies,
        **gaps,
    )


def with_digests(table: SpanTable, *, keep: NDArray[Any] | None = None) -> SpanTable:
    """Returns the worker steps of a table, each with its digest: what workers always send.

    Args:
        table: spans of any ranks and steps, each with its worker step.
        keep: rows whose whole rank and step stays beside the digest, bool mask; none if None.
    """
    owner = np.stack([table.step, table.rank], axis=1)
    _, of_row = np.unique(owner, axis=0, return_inverse=True)
    of_row = of_row.reshape(-1)
    order = np.argsort(of_row, kind="stable")
    edges = np.flatnonzero(np.diff(of_row[order])) + 1
    attributes = dict(table.attributes)
    kept = np.zeros(len(table), np.bool_)
    first = int(table.step.min()) if len(table) else 0
    for rows in np.split(order, edges) if len(order) else []:
        tops = rows[table.kind[rows] == _WORKER_STEP]
        if not len(tops):
            continue
        digest, top = digest_of(table, rows), int(tops[0])
        stays = rows if keep is not None and bool(keep[rows].any()) else tops[:1]
        kept[stays] = True
        said = dict(attributes.get(top, {}))
        said[semconv.SPAN_COUNT] = len(stays)
        said[semconv.DIGEST] = encode(digest)
        if (step := int(table.step[top])) == first or step % NAMES_EVERY == 0:
            said[semconv.DIGEST_NAMES] = names_text(digest.names)
        attributes[top] = said
    return replace(table, attributes=attributes).take(kept)


def names_text(names: Mapping[int, str]) -> str:
    """Returns what the hashes stand for, a line each; sent now and then, not with each step."""
    return "\n".join(f"{number:08x} {text[:_NAME_BYTES]}" for number, text in sorted(names.items()))


def _launched(table: SpanTable, gpu: Int64) -> Int64:
    """Returns when each GPU span was launched, Unix ns; -1 where no launch is known."""
    parent = table.parent[gpu]
    known = (parent != NO_PARENT) & (table.kind[parent] == _LAUNCH)
    return np.where(known, table.start_ns[parent], -1)


class _Names:
    """What the names of the GPU work say, looked up once per distinct name.

    Attributes:
        kind: which of ``hashes`` each row has, ``(n,)``.
        hashes: of the distinct families, ascending.
        semantics, directions: by row, ``(n,)``.
        texts: what the hashes stand for.
    """

    def __init__(self, table: SpanTable, gpu: Int64) -> None:
        used, place = _distinct(table.name[gpu])
        known = _known(table.strings, used)
        self.hashes, self.texts = known.hashes, known.texts
        self.kind: Int64 = known.kind[place]
        meaning, kinds = known.semantics[place], table.kind[gpu]
        meaning[(kinds == _MEMCPY) | (kinds == _MEMSET)] = 0
        meaning[(kinds == _COLLECTIVE) & (meaning == 0)] = Semantics.BARRIER
        self.semantics: Int64 = meaning
        self.directions: Int64 = known.directions[place]


class _Known(NamedTuple):
    """What a step's distinct names say, by their place.

    Attributes:
        hashes: of the distinct families, ascending.
        kind: which of ``hashes`` each name has.
        semantics, directions: of each name.
        texts: what the hashes stand for.
    """

    hashes: Int64
    kind: Int64
    semantics: Int64
    directions: Int64
    texts: Mapping[int, str]


_KNOWN: Final[OrderedDict[tuple[int, bytes], tuple[StringTable, _Known]]] = OrderedDict()
_MOST_KNOWN: Final = 64
_knowing: Final = threading.Lock()


def _known(strings: StringTable, used: Int64) -> _Known:
    """Returns what names say: steps launch the same kernels again and again."""
    key = id(strings), used.tobytes()
    with _knowing:
        table, known = _KNOWN.get(key, (None, None))
    if known is not None and table is strings:
        return known
    said = [told(strings[int(i)]) for i in used]
    columns = np.array([t[:3] for t in said], np.int64).reshape(-1, 3)
    hashes, kind = np.unique(columns[:, 0], return_inverse=True)
    texts = {t[0]: t[3] for t in said}
    known = _Known(hashes, kind.reshape(-1), columns[:, 1], columns[:, 2], texts)
    with _knowing:  # the table is held on to: another's id must not be taken for its
        _KNOWN[key] = strings, known
        while len(_KNOWN) > _MOST_KNOWN:
            _KNOWN.popitem(last=False)
    return known


def _distinct(index: NDArray[Any]) -> tuple[Int64, Int64]:
    """Returns the distinct numbers, ascending, and each one's place among them; without a sort."""
    used = np.flatnonzero(np.bincount(index, minlength=1))
    place = np.zeros(int(used[-1]) + 1 if len(used) else 1, np.int64)
    place[used] = np.arange(len(used))
    return used, place[index]


@lru_cache(maxsize=65_536)
def told(name: str) -> tuple[int, int, int, str]:
    """Returns hash, semantics, copy direction and family of a kernel's name."""
    short = family(name)
    directions = [i for i, d in enumerate(COPY_DIRECTIONS) if d in name]
    return class_hash(short), int(semantics(name)), (directions or [3])[0], short


def _whats(table: SpanTable, met: Int64, names: _Names) -> tuple[NDArray[Any], Int64]:
    """Returns the table of kinds of collectives, and each collective's index into it."""
    chosen = names.semantics > 0
    used, group = _distinct(table.group[met])
    key = (names.kind[chosen] * max(len(used), 1) + group) * 4 + names.semantics[chosen]
    distinct, what = _distinct(key)
    whats = np.zeros(len(distinct), WHAT)
    kind, place = np.divmod(distinct // 4, max(len(used), 1))
    groups = np.array([class_hash(table.strings[int(i)]) for i in used], np.int64)
    whats["family"], whats["semantics"] = names.hashes[kind], distinct % 4
    whats["group"] = groups[place] if len(distinct) else 0
    return whats, what


def _cuts(collective: NDArray[np.bool_]) -> Int64:
    """Returns the position of each GPU span: equal numbers of collectives in each."""
    before = np.cumsum(collective) - collective
    total = int(collective.sum()) + 1
    return before * MAX_POSITIONS // total


def _cells(duration: Int64, kind: Int64, hashes: Int64, position: Int64) -> dict[str, Any]:
    used, index = _distinct(kind)
    cell = index * MAX_POSITIONS + position
    size = len(used) * MAX_POSITIONS
    longest = np.zeros(size, np.int64)
    np.maximum.at(longest, cell, duration)
    shape = (len(used), MAX_POSITIONS)
    return {
        "classes": hashes[used].astype(np.uint32),
        "time": np.bincount(cell, duration, size).astype(np.int64).reshape(shape),
        "longest": longest.reshape(shape),
        "count": np.bincount(cell, minlength=size).reshape(shape),
    }


def _blocks(table: SpanTable, rows: Int64) -> int:
    """Returns how many thread blocks the kernels have in all."""
    return int(_GRID_SIZES.of(table.strings, table.grid[rows]).sum())


def grid_size(grid: str) -> int:
    """Returns the thread blocks of a grid ``"x,y,z"``; 0 for what is none."""
    sides = grid.split(",")
    size = math.prod(int(side) for side in sides) if all(map(str.isdecimal, sides)) else 0
    return min(size, _MOST_BLOCKS)


_GRID_SIZES: Final = PerString(grid_size)


def _copies(table: SpanTable, rows: Int64, direction: Int64) -> dict[str, Int64]:
    count = len(COPY_DIRECTIONS)
    moved = np.maximum(table.bytes[rows], 0)
    return {
        "copies": np.bincount(direction, minlength=count),
        "copy_bytes": np.bincount(direction, moved, count).astype(np.int64),
        "copy_ns": np.bincount(direction, table.duration_ns[rows], count).astype(np.int64),
    }


def _gaps(table: SpanTable, launches: Int64, met: Int64) -> dict[str, int]:
    """Returns the statistics of the host time between launches; ``met``: collectives' launches."""
    if len(launches) < 2:
        return {"launches": len(launches)}
    launches = launches[np.argsort(table.start_ns[launches], kind="stable")]
    start, end = table.start_ns[launches], table.start_ns[launches] + table.duration_ns[launches]
    gaps = np.maximum(start[1:] - end[:-1], 0)
    widest = int(np.argmax(gaps))
    return {
        "launches": len(launches),
        "gap_ns": int(gaps.sum()),
        "gap_max_ns": int(gaps[widest]),
        "gap_at": int((met <= end[widest]).sum()),
    }
