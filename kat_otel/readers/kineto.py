"""PyTorch profiler (Kineto) Chrome traces -> spans, streaming.

One file is one rank. Times are microseconds, in whole numbers before 2024 and with
nanosecond fractions since; newer files count from ``baseTimeNanoseconds``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import TraceFileError
from kat_otel.readers.draft import NO_LANE, Draft, Interner
from kat_otel.readers.files import ForeignFileError, byte_chunks
from kat_otel.readers.kineto_events import CATEGORIES, Args, Event, decode_run, times_of
from kat_otel.readers.scanner import EventRun, EventScanner, ScanError
from kat_otel.spans import UNKNOWN, Resource, SpanKind, SpanTableBuilder

__all__ = ["read_kineto"]

_BYTES_OF = {
    "float": 4, "bfloat16": 2, "half": 2, "double": 8, "int": 4, "long": 8, "long int": 8,
    "short": 2, "char": 1, "signed char": 1, "byte": 1, "unsigned char": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "complexfloat": 8, "complexdouble": 16, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
_ANNOTATIONS = frozenset({"user_annotation", "python_function"})
_SYNC = re.compile(r"Synchronize")
_NOTHING = Args()
_REMEDY = "export the trace again, or copy the file again if the original is whole"


def read_kineto(path: Path) -> Draft:
    """Reads one Kineto file; a damaged one gives what stands before the damage and the error.

    Raises:
        TraceFileError: nothing of the file could be read, or it is no Kineto trace.
    """
    scanner = EventScanner()
    reader = _Columns()
    error: TraceFileError | None = None
    about: dict[str, Any] = {}
    try:
        for chunk in byte_chunks(path):
            run = scanner.feed(chunk)
            if run is not None:
                reader.add(run)
        if not scanner.complete:
            raise _unfinished(path, scanner)
        about = _frame_of(path, scanner)
    except ScanError as problem:
        error = TraceFileError(
            str(path), str(problem), place=f"byte {problem.offset:,} uncompressed", remedy=_REMEDY
        )
    except TraceFileError as problem:
        error = problem
    if error is not None:
        if not reader.rows:
            raise error
        about = _head_of(scanner)
    return reader.finish(path, about, error)


def _unfinished(path: Path, scanner: EventScanner) -> TraceFileError:
    if scanner.frame:
        return TraceFileError(
            str(path),
            "the file ends inside its list of events: it is truncated",
            place=f"byte {scanner.offset:,} uncompressed",
            remedy=_REMEDY,
        )
    return ForeignFileError(
        str(path),
        "JSON, but not a Chrome trace: it has no list of events (traceEvents)",
        remedy="name the files that torch.profiler exported",
    )


def _frame_of(path: Path, scanner: EventScanner) -> dict[str, Any]:
    try:
        frame = json.loads(scanner.frame)
    except (ValueError, RecursionError) as error:
        raise TraceFileError(
            str(path),
            f"the text around the events is not JSON: {error}",
            place=f"after byte {scanner.offset:,} uncompressed",
            remedy=_REMEDY,
        ) from error
    return _dictionary(frame)


def _head_of(scanner: EventScanner) -> dict[str, Any]:
    """What a truncated file says before its events: enough for the rank and the time base."""
    try:
        frame = json.loads(scanner.frame.partition(b"]}")[0] + b"]}")
    except (ValueError, RecursionError):
        return {}
    return _dictionary(frame)


class _Lanes(dict[tuple[int | str | None, int | str | None], int]):
    """(process, thread) as the file says them -> number of the lane."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def __missing__(self, key: tuple[int | str | None, int | str | None]) -> int:
        number = self[key] = len(self)
        self.threads.append(key[1] if isinstance(key[1], int) else 0)
        return number


class _Columns:
    """Collects the columns of one file, run by run."""

    def __init__(self) -> None:
        self._builder = SpanTableBuilder()
        self._resource = self._builder.add_resource(Resource())
        self._names = Interner(self._builder.strings)
        self._sizes: dict[Any, int] = {None: 0}
        self._groups: dict[tuple[str | None, str | None], int] = {}
        self._lanes = _Lanes()
        self._lane_chunks: list[NDArray[np.int32]] = []
        self._annotations: set[int] = set()
        self._devices: Counter[int] = Counter()
        self._exact = False
        self._fractional = False
        self._odd = 0
        self._left_out: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        return len(self._builder)

    def add(self, run: EventRun) -> None:
        events, lost = decode_run(run, exact=self._exact)
        self._odd += lost
        events = [event for event in events if event.ph == "X"]
        times = times_of(events)
        if times.needs_exact:
            self._exact = True
            events, _ = decode_run(run, exact=True)
            events = [event for event in events if event.ph == "X"]
            times = times_of(events)
        self._fractional |= times.fractional
        kinds = [CATEGORIES.get(event.cat, UNKNOWN) for event in events]
        kind = np.array(kinds, dtype=np.int16)
        unknown = np.flatnonzero(kind == UNKNOWN).tolist()
        self._left_out.update(events[i].cat for i in unknown)
        self._odd += int(np.count_nonzero(~times.sane & (kind != UNKNOWN)))
        usable = times.sane & (kind != UNKNOWN)
        host = (kind == SpanKind.HOST_OP) | (kind == SpanKind.LAUNCH)
        for side in (usable & host, usable & ~host):
            rows = np.flatnonzero(side)
            if len(rows):
                chosen = [events[i] for i in rows.tolist()]
                common = {
                    "start_ns": times.start[rows],
                    "duration_ns": times.duration[rows],
                    "kind": kind[rows],
                }
                self._append(chosen, common)

    def _append(self, events: list[Event], columns: dict[str, Any]) -> None:
        """Adds events that are all the host's, or all the GPU's."""
        args = [event.args or _NOTHING for event in events]
        names = np.array([self._names[event.name] for event in events], dtype=np.int32)
        columns |= {
            "name": names,
            "resource": self._resource,
            "correlation": [UNKNOWN if a.correlation is None else a.correlation for a in args],
        }
        kind = columns["kind"]
        if kind[0] in (SpanKind.HOST_OP, SpanKind.LAUNCH):
            lane = np.array([self._lanes[e.pid, e.tid] for e in events], dtype=np.int32)
            columns["thread"] = np.array(self._lanes.threads, dtype=np.int64)[lane]
            marked = [event.cat in _ANNOTATIONS for event in events]
            self._annotations.update(np.unique(names[marked]).tolist())
        else:
            lane = np.full(len(events), NO_LANE, dtype=np.int32)
            columns |= self._gpu_columns(events, args)
            told = np.array([a.collective is not None for a in args])
            columns["kind"] = np.where(
                told & (kind == SpanKind.KERNEL), np.int16(SpanKind.COLLECTIVE), kind
            )
        self._builder.append(len(events), **columns)
        self._lane_chunks.append(lane)

    def _gpu_columns(self, events: Sequence[Event], args: Sequence[Args]) -> dict[str, Any]:
        self._devices.update(a.device for a in args if a.device is not None)
        return {
            "stream": [_stream(e, a) for e, a in zip(events, args, strict=True)],
            "graph": [UNKNOWN if a.graph is None else a.graph for a in args],
            "graph_node": [UNKNOWN if a.graph_node is None else a.graph_node for a in args],
            "grid": [self._size(a.grid) for a in args],
            "block": [self._size(a.block) for a in args],
            "bytes": [_bytes(a) for a in args],
            "group": [self._group(a.group, a.group_ranks) for a in args],
            "sequence": [UNKNOWN if a.sequence is None else a.sequence for a in args],
        }

    def _size(self, size: tuple[int, ...] | str | None) -> int:
        index = self._sizes.get(size)
        if index is None:
            text = size if isinstance(size, str) else ",".join(map(str, size or ()))
            index = self._sizes[size] = self._names[text]
        return index

    def _group(self, name: str | None, ranks: str | None) -> int:
        if name is None and ranks is None:
            return 0
        index = self._groups.get((name, ranks))
        if index is None:
            # Names are counted per rank, so that only name and members together tell a group.
            text = f"{name or ''}{(ranks or '').replace(' ', '')}"
            index = self._groups[name, ranks] = self._names[text]
        return index

    def finish(self, path: Path, about: dict[str, Any], error: TraceFileError | None) -> Draft:
        """Returns the draft; ``about`` is the file without its events."""
        resource, rank_known = _resource_of(path, about, self._devices)
        resolution = 1 if self._fractional else 1000
        self._builder.replace_resource(self._resource, replace(resource, resolution_ns=resolution))
        table = self._builder.build()
        base = about.get("baseTimeNanoseconds")
        if isinstance(base, int) and not isinstance(base, bool) and 0 <= base < 2**62:
            table.start_ns[:] += base
        is_sync = np.array([bool(_SYNC.search(text)) for text in table.strings])
        table.kind[(table.kind == SpanKind.LAUNCH) & is_sync[table.name]] = SpanKind.SYNC
        notes = self._notes(path)
        lane = np.concatenate([np.empty(0, np.int32), *self._lane_chunks])
        return Draft(
            table,
            lane,
            annotations=self._annotations,
            rank_known=[rank_known],
            notes=notes,
            error=error,
        )

    def _notes(self, path: Path) -> list[str]:
        notes: list[str] = []
        if self._odd:
            notes.append(
                f"{path.name}: {self._odd:,} events left out: no start time, a negative duration "
                "or no valid JSON"
            )
        left = {cat: count for cat, count in self._left_out.items() if cat not in ("", "Trace")}
        if left:
            listed = ", ".join(f"{count:,} {cat!r}" for cat, count in sorted(left.items())[:8])
            notes.append(f"{path.name}: events of unknown categories left out: {listed}")
        if len(self._devices) > 1:
            notes.append(
                f"{path.name}: work on {len(self._devices)} devices in one file is read as one rank"
            )
        return notes


def _resource_of(path: Path, about: dict[str, Any], devices: Counter[int]) -> tuple[Resource, bool]:
    info = _dictionary(about.get("distributedInfo"))
    rank, world = _number(info.get("rank")), _number(info.get("world_size"))
    host = about.get("hostname") or about.get("host_name")
    resource = Resource(
        rank=rank,
        world_size=world,
        device=devices.most_common(1)[0][0] if devices else UNKNOWN,
        host=host if isinstance(host, str) else "",
        source=str(path),
    )
    return resource, rank != UNKNOWN


def _dictionary(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
        return value
    return UNKNOWN


def _stream(event: Event, args: Args) -> int:
    stream = event.tid if args.stream is None else args.stream
    if isinstance(stream, str):
        stream = int(stream) if stream.isdecimal() and len(stream) < 10 else None
    return stream if stream is not None and -(2**31) <= stream < 2**31 else UNKNOWN


def _bytes(args: Args) -> int:
    if args.bytes is not None:
        return args.bytes
    if args.elements is None or args.dtype is None:
        return UNKNOWN
    size = _BYTES_OF.get(args.dtype.lower().removeprefix("c10::"))
    return UNKNOWN if size is None or args.elements >= 2**58 else args.elements * size
