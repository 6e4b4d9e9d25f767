"""Finding trace files, telling their format by content, and streaming their bytes.

A name is only a hint: exports are renamed, compressed and uncompressed by hand.
What a file is, its first bytes say.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from kat_otel.errors import TraceFileError

__all__ = ["Candidates", "ForeignFileError", "Format", "byte_chunks", "find_files", "sniff"]

CHUNK = 256 * 1024
"""Bytes handed on at once, uncompressed; fits the second-level cache, where scanning is fastest."""

_PEEK = 4096
_SUFFIXES = (".json", ".jsonl", ".sqlite", ".pb", ".binpb")
_ENDINGS = tuple(suffix + gz for suffix in _SUFFIXES for gz in ("", ".gz"))
_GZIP = b"\x1f\x8b"
_SQLITE = b"SQLite format 3\0"
_BLANK = b" \t\r\n\xef\xbb\xbf"  # with the byte order mark that some editors leave


class ForeignFileError(TraceFileError):
    """The file is whole, but no trace: an error if it was named, a note if it lay in a folder."""


class Format(Enum):
    """What a file holds, as far as its first bytes tell."""

    CHROME_JSON = "Chrome trace JSON"
    SQLITE = "SQLite"
    OTLP_JSON = "OTLP JSON lines"
    OTLP_PROTO = "OTLP protobuf"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Files to read, in order; ``named`` are those the user named one by one."""

    files: list[Path] = field(default_factory=list[Path])
    named: set[Path] = field(default_factory=set[Path])
    errors: list[TraceFileError] = field(default_factory=list[TraceFileError])
    passed_over: list[Path] = field(default_factory=list[Path])


def find_files(paths: Sequence[str | Path]) -> Candidates:
    """Returns the files that ``paths`` name, folders searched recursively, each file once."""
    found = Candidates()
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            members = sorted(p for p in path.rglob("*") if p.is_file())
            traces = [p for p in members if _looks_like_a_trace(p)]
            found.passed_over.extend(p for p in members if not _looks_like_a_trace(p))
            if not traces:
                found.errors.append(
                    TraceFileError(
                        str(path),
                        "no trace files in this folder",
                        remedy=f"name files, or give them one of the endings {', '.join(_ENDINGS)}",
                    )
                )
        elif path.exists():
            traces = [path]
            found.named.add(path)
        else:
            traces = []
            found.errors.append(
                TraceFileError(str(path), "does not exist", remedy="check the path")
            )
        for trace in traces:
            if (real := trace.resolve()) not in seen:
                seen.add(real)
                found.files.append(trace)
    return found


def _looks_like_a_trace(path: Path) -> bool:
    return path.name.lower().endswith(_ENDINGS)


def sniff(path: Path) -> Format | None:
    """Returns the format that the first bytes of ``path`` say, or None if they say none.

    Raises:
        TraceFileError: the file is empty, unreadable or its compression is damaged at the start.
    """
    head = b""
    for chunk in byte_chunks(path):
        head += chunk
        if len(head) >= _PEEK:
            break
    if not head.strip(_BLANK):
        raise TraceFileError(
            str(path), "the file is empty", remedy="export the trace again; the profiler wrote none"
        )
    if head.startswith(_SQLITE):
        return Format.SQLITE
    text = head.lstrip(_BLANK)
    if text[:1] == b"{" and text[1:].lstrip(_BLANK).startswith(
        (b'"resourceSpans"', b'"resource_spans"')
    ):
        return Format.OTLP_JSON
    if text[:1] in (b"{", b"["):
        return Format.CHROME_JSON
    if _is_length_prefixed(head) or head[:1] == b"\x0a":
        return Format.OTLP_PROTO
    return None


def _is_length_prefixed(head: bytes) -> bool:
    # Field 1 (resource_spans), wire type 2: the first byte of every trace request.
    return len(head) > 5 and int.from_bytes(head[:4], "big") > 1 and head[4] == 0x0A


def byte_chunks(path: Path, size: int = CHUNK) -> Iterator[bytes]:
    """Yields the uncompressed bytes of ``path``, at most ``size`` at once.

    Raises:
        TraceFileError: the file cannot be read, or its gzip data are damaged or end early;
            what came before has been yielded.
    """
    try:
        with path.open("rb") as file:
            first = file.read(len(_GZIP))
            file.seek(0)
            if first == _GZIP:
                yield from _gunzip(path, iter(lambda: file.read(size), b""), size)
            else:
                yield from iter(lambda: file.read(size), b"")
    except OSError as error:
        raise TraceFileError(
            str(path), f"cannot be read: {error.strerror}", remedy="check the path and permissions"
        ) from error


def _gunzip(path: Path, blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    out = 0
    packed = 0
    inflate = zlib.decompressobj(wbits=31)
    try:
        for block in blocks:
            packed += len(block)
            rest = block
            while rest:
                if inflate.eof:  # another member follows; zeros may pad the end of one
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    inflate = zlib.decompressobj(wbits=31)
                data = inflate.decompress(rest, size)
                out += len(data)
                if data:
                    yield data
                rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        while not inflate.eof and (held := inflate.decompress(b"", size)):
            out += len(held)  # zlib may hold back output that did not fit
            yield held
    except zlib.error as error:
        raise TraceFileError(
            str(path),
            f"the gzip data are damaged: {error}",
            place=f"byte {packed:,} of the file, {out:,} uncompressed",
            remedy="copy the file again",
        ) from error
    if not inflate.eof:
        raise TraceFileError(
            str(path),
            "the gzip data end early: the file is truncated",
            place=f"byte {packed:,} of the file, {out:,} uncompressed",
            remedy="copy the file again, or wait until the profiler has finished writing it",
        )
