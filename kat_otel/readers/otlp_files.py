"""OTLP files as the collector's file exporter writes them -> spans.

JSON: one request a line (or the whole file one document). Protobuf: each message after its
length, four bytes, most significant first (or the whole file one message). Ids, steps and
parents are what the file says; only what lacks a parent id is joined by correlation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from kat_otel.errors import DecodeError, TraceFileError
from kat_otel.otlp.decode import decode_traces, decode_traces_json
from kat_otel.readers.draft import NO_LANE, Draft
from kat_otel.readers.files import byte_chunks
from kat_otel.spans import UNKNOWN, Resource, SpanKind, SpanTable, StringTable, concat
from kat_otel.trees import join_launches

__all__ = ["read_otlp_json", "read_otlp_proto"]

_MAX_MESSAGE = 256 * 1024 * 1024
_REMEDY = "copy the file again, or let the collector finish writing it"

_Message = tuple[str, bytes]
"""Where a message stands, for errors, and its bytes."""


def read_otlp_json(path: Path) -> Draft:
    """Reads OTLP JSON lines, or one JSON document.

    Raises:
        TraceFileError: nothing of the file could be decoded.
    """
    return _read(path, _lines(path), partial(decode_traces_json, strings=StringTable()))


def read_otlp_proto(path: Path) -> Draft:
    """Reads length-prefixed OTLP protobuf messages, or one message without a length.

    Raises:
        TraceFileError: nothing of the file could be decoded.
    """
    return _read(path, _messages(path), partial(decode_traces, strings=StringTable()))


def _read(path: Path, messages: Iterator[_Message], decode: Callable[[bytes], SpanTable]) -> Draft:
    tables: list[SpanTable] = []
    error: TraceFileError | None = None
    try:
        for place, message in messages:
            try:
                tables.append(decode(message))
            except DecodeError as problem:
                raise TraceFileError(
                    str(path), str(problem), place=place, remedy=_REMEDY
                ) from problem
    except TraceFileError as problem:
        error = problem
    table = concat(tables) if tables else SpanTable.empty()
    if error is not None and not len(table):
        raise error
    table = _joined(_shared_resources(table, path))
    unknown = sum(resource.rank == UNKNOWN for resource in table.resources)
    notes = (
        [f"{path.name}: {unknown} resources do not say their rank (kat.rank)"] if unknown else []
    )
    return Draft(
        table,
        np.full(len(table), NO_LANE, dtype=np.int32),
        rank_known=[True] * len(table.resources),
        notes=notes,
        error=error,
        has_ids=True,
    )


def _lines(path: Path) -> Iterator[_Message]:
    pending: list[bytes] = []
    size = 0
    number = 1
    one_document: bool | None = None
    for chunk in byte_chunks(path):
        if one_document is None:  # indented JSON: its first line holds the brace alone
            one_document = chunk.lstrip(b"\xef\xbb\xbf \t").split(b"\n", 1)[0].strip() == b"{"
        *whole, rest = [chunk] if one_document else chunk.split(b"\n")
        for line in whole:
            text = b"".join([*pending, line])
            pending, size = [], 0
            if text.strip():
                yield f"line {number:,}", text
            number += 1
        pending.append(rest)
        size += len(rest)
        _check_size(path, size, f"line {number:,}")
    if text := b"".join(pending).strip():
        yield f"line {number:,}", text


def _messages(path: Path) -> Iterator[_Message]:
    pending = bytearray()
    offset = 0
    prefixed: bool | None = None
    for chunk in byte_chunks(path):
        pending += chunk
        if prefixed is None and len(pending) > 4:
            starts_bare = pending[0] == 0x0A  # as a length: more than 160 MiB
            prefixed = not starts_bare
        while prefixed and len(pending) >= 4 and len(pending) >= 4 + (length := _length(pending)):
            yield f"byte {offset:,} uncompressed", bytes(pending[4 : 4 + length])
            del pending[: 4 + length]
            offset += 4 + length
        wanted = _length(pending) if prefixed and len(pending) >= 4 else len(pending)
        _check_size(path, wanted, f"byte {offset:,} uncompressed")
    if pending and prefixed:
        raise TraceFileError(
            str(path),
            f"the last message is cut off: {len(pending):,} bytes of it are there",
            place=f"byte {offset:,} uncompressed",
            remedy=_REMEDY,
        )
    if pending:
        yield "the only message", bytes(pending)


def _length(head: bytearray) -> int:
    return int.from_bytes(head[:4], "big")


def _check_size(path: Path, size: int, place: str) -> None:
    if size > _MAX_MESSAGE:
        raise TraceFileError(
            str(path),
            f"a message of {size:,} bytes: more than {_MAX_MESSAGE:,} are not read at once",
            place=place,
            remedy="if the file is OTLP, let the collector write smaller batches",
        )


def _shared_resources(table: SpanTable, path: Path) -> SpanTable:
    """Every message names its resources anew: says each once."""
    kept: dict[str, int] = {}
    resources: list[Resource] = []
    moved: list[int] = []
    for resource in table.resources:
        named = resource if resource.source else replace(resource, source=str(path))
        key = repr(named)
        if key not in kept:
            kept[key] = len(resources)
            resources.append(named)
        moved.append(kept[key])
    index = np.array(moved or [0], dtype=np.int32)
    table = replace(table, resources=tuple(resources))
    return table.with_columns(resource=index[table.resource]) if len(table) else table


def _joined(table: SpanTable) -> SpanTable:
    """Gives GPU work without a parent id its launch, by correlation within a resource."""
    work = np.flatnonzero(table.on_gpu & (table.parent_id == 0) & (table.correlation > 0))
    if not len(work):
        return table
    launches = np.flatnonzero(table.kind == SpanKind.LAUNCH)
    found = join_launches(
        table.resource[launches],
        table.correlation[launches],
        table.resource[work],
        table.correlation[work],
    )
    hit = found >= 0
    parent_id = table.parent_id.copy()
    same_trace = table.trace_lo[launches[found]] == table.trace_lo[work] if len(launches) else hit
    hit &= same_trace
    parent_id[work[hit]] = table.span_id[launches[found[hit]]]
    return table.with_columns(parent_id=parent_id)
