"""Nsight Systems sqlite exports -> spans; several processes and GPUs in one file.

Times become Unix nanoseconds through the session's start. Each device is a worker; the
host work of a process belongs to the device that its threads drive. Exports of older
versions lack tables and columns: what is there is read.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import TraceFileError
from kat_otel.kernels import COPY_KINDS
from kat_otel.readers.draft import NO_LANE, Draft, Interner
from kat_otel.readers.files import ForeignFileError, byte_chunks
from kat_otel.readers.nsys_owners import owners_of
from kat_otel.readers.nsys_tables import TABLES, NsysTable, Strings, columns_of, read_rows
from kat_otel.readers.nsys_target import Target, read_target
from kat_otel.spans import UNKNOWN, Resource, SpanKind, SpanTable, SpanTableBuilder

__all__ = ["read_nsys"]

_MEMORIES = {
    0: "Pageable",
    1: "Pinned",
    2: "Device",
    3: "Array",
    4: "Managed",
    5: "Device Static",
    6: "Managed Static",
}
_SYNCS = {1: "Event Sync", 2: "Stream Wait Event", 3: "Stream Sync", 4: "Context Sync"}
_SYNC_CALL = re.compile(r"Synchronize")
_VERSIONED = re.compile(r"_v\d{4,5}(_ptsz|_ptds)?$")
_SPARE_DISK = 256 * 1024 * 1024
_REMEDY = "export the report again: nsys export --type sqlite REPORT.nsys-rep"


def read_nsys(path: Path) -> Draft:
    """Reads one sqlite export, gzipped or not.

    Raises:
        TraceFileError: the file is damaged, cut short, or no Nsight Systems export.
    """
    with _unpacked(path) as database_path:
        _check_length(path, database_path)
        try:
            uri = f"file:{quote(str(database_path))}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as database:
                database.text_factory = _text  # ranges are named by programs, in any bytes
                return _read(path, database)
        except (sqlite3.Error, UnicodeError) as error:
            raise TraceFileError(str(path), f"damaged: {error}", remedy=_REMEDY) from error


@contextmanager
def _unpacked(path: Path) -> Generator[Path]:
    """Gives the database as a file that SQLite can open: itself, or its unzipped copy."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    if not gzipped:
        yield path.resolve()
        return
    with tempfile.NamedTemporaryFile(prefix="kat-otel-", suffix=".sqlite") as copy:
        for chunk in byte_chunks(path):
            if shutil.disk_usage(copy.name).free < _SPARE_DISK:
                raise TraceFileError(
                    str(path),
                    f"no room to unpack it in {Path(copy.name).parent}",
                    remedy="unpack it by hand where there is room, or set TMPDIR",
                )
            copy.write(chunk)
        copy.flush()
        yield Path(copy.name)


def _check_length(path: Path, database_path: Path) -> None:
    """A database cut short fails only where the missing pages are needed; the header knows."""
    size = database_path.stat().st_size
    with database_path.open("rb") as file:
        header = file.read(100)
    page = int.from_bytes(header[16:18], "big")
    expected = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
    if len(header) < 100 or size < expected:
        raise TraceFileError(
            str(path),
            f"the database is truncated: {size:,} of {expected:,} bytes",
            place=f"byte {size:,}",
            remedy="copy the file again, or " + _REMEDY,
        )


def _read(path: Path, database: sqlite3.Connection) -> Draft:
    if not any(columns_of(database, table.name) for table in TABLES):
        raise ForeignFileError(
            str(path),
            "an SQLite database, but no export of Nsight Systems: it has none of its tables",
            remedy=_REMEDY,
        )
    target = read_target(database)
    columns = _Columns(
        Strings(database, names := Interner((builder := SpanTableBuilder()).strings), str(path)),
        names,
        builder,
    )
    for table in TABLES:
        for values, texts in read_rows(database, table, str(path)):
            columns.add(table, values, texts)
    return columns.finish(path, target)


class _Columns:
    """Collects the columns of one export, table by table."""

    def __init__(self, strings: Strings, names: Interner, builder: SpanTableBuilder) -> None:
        self._strings = strings
        self._names = names
        self._builder = builder
        self._sizes: dict[int, int] = {}
        self._annotations: set[int] = set()
        self._devices: list[NDArray[np.int32]] = []
        self._threads: list[NDArray[np.int64]] = []
        self._processes: list[NDArray[np.int64]] = []
        self._without_process = False
        self._odd = 0

    def add(self, table: NsysTable, values: dict[str, NDArray[np.int64]], texts: list[str]) -> None:
        odd = values["end"] < values["start"]
        if odd.any():
            self._odd += int(np.count_nonzero(odd))
            values = {name: column[~odd] for name, column in values.items()}
            texts = [text for text, bad in zip(texts, odd.tolist(), strict=False) if not bad]
        count = len(values["start"])
        on_device = "pid" in values
        columns: dict[str, Any] = {
            "start_ns": values["start"],
            "duration_ns": values["end"] - values["start"],
            "kind": table.kind,
            "name": self._name(table, values, texts),
            "correlation": values.get("correlation", UNKNOWN),
        }
        if on_device:
            columns |= {
                "stream": np.where(values["stream"] >= 0, values["stream"], UNKNOWN),
                "bytes": values.get("bytes", UNKNOWN),
                "graph": values.get("graph", UNKNOWN),
                "graph_node": values.get("graph_node", UNKNOWN),
            }
            process, thread = values["pid"], np.full(count, NO_LANE, np.int64)
            self._without_process |= bool((process == UNKNOWN).any())
        else:
            columns["thread"] = values["tid"] & 0xFFFFFF
            process, thread = values["tid"], values["tid"]
        if table.kind == SpanKind.KERNEL and "gx" in values:
            columns["grid"] = self._size(values["gx"], values["gy"], values["gz"])
            columns["block"] = self._size(values["bx"], values["by"], values["bz"])
        self._builder.append(count, **columns)
        self._devices.append(values.get("device", np.full(count, UNKNOWN)).astype(np.int32))
        self._threads.append(thread)
        self._processes.append(process >> 24)

    def _name(
        self, table: NsysTable, values: dict[str, NDArray[np.int64]], texts: list[str]
    ) -> NDArray[np.int32]:
        if table.text:
            names = np.array([self._names[text] for text in texts], dtype=np.int32)
            self._annotations.update(np.unique(names).tolist())
            return names
        if "name" in values:
            return self._strings.indices(values["name"])
        if "copy" in values:
            key = values["copy"] << 16 | (values["from"] & 0xFF) << 8 | (values["to"] & 0xFF)
            return self._named(key, _copy_name)
        if "sync" in values:
            return self._named(values["sync"], _sync_name)
        fixed = "Memset (Device)" if table.kind == SpanKind.MEMSET else "CUDA graph"
        return np.full(len(values["start"]), self._names[fixed], dtype=np.int32)

    def _named(self, keys: NDArray[np.int64], name_of: Callable[[int], str]) -> NDArray[np.int32]:
        distinct, place = np.unique(keys, return_inverse=True)
        return np.array([self._names[name_of(int(k))] for k in distinct], dtype=np.int32)[place]

    def _size(
        self, x: NDArray[np.int64], y: NDArray[np.int64], z: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        # y and z have at most 65,535 blocks (threads: 1,024), so all three fit one integer.
        packed = (x & 0x7FFFFFFF) << 32 | (y & 0xFFFF) << 16 | (z & 0xFFFF)
        return self._named(packed, _size_text)

    def finish(self, path: Path, target: Target) -> Draft:
        """Returns the draft: resources, absolute times, and which host work belongs to whom."""
        notes: list[str] = []
        device = np.concatenate([np.empty(0, np.int32), *self._devices])
        thread = np.concatenate([np.empty(0, np.int64), *self._threads])
        process = np.concatenate([np.empty(0, np.int64), *self._processes])
        self._devices, self._threads, self._processes = [], [], []
        numbers = [int(d) for d in np.unique(device) if d != UNKNOWN] or [UNKNOWN]
        for number in numbers:
            self._builder.add_resource(_resource(path, target, number, alone=len(numbers) == 1))
        table = self._builder.build()
        self._rename_calls(table)
        self._to_unix(path, table, target, notes)
        if self._without_process:
            process[:] = 0  # older exports do not say it: one space of correlation ids
        lanes, lane = np.unique(thread, return_inverse=True)
        lane = (lane - int(len(lanes) > 0 and lanes[0] == NO_LANE)).astype(np.int32)
        _, process_index = np.unique(process, return_inverse=True)
        owner = owners_of(
            table,
            device=np.searchsorted(numbers, device),
            on_device=device != UNKNOWN,
            lane=lane,
            process=process_index,
            devices=len(numbers),
        )
        table.resource[:] = np.maximum(owner, 0)
        homeless = owner < 0
        if homeless.any():
            count = int(np.count_nonzero(homeless))
            notes.append(
                f"{path.name}: {count:,} host spans of processes that drive no GPU left out"
            )
            keep = ~homeless
            table, lane, process_index = table.take(keep), lane[keep], process_index[keep]
        if self._odd:
            notes.append(f"{path.name}: {self._odd:,} rows with a negative duration left out")
        rank_known = [len(numbers) == 1 and target.rank != UNKNOWN] * len(numbers)
        return Draft(
            table,
            lane,
            process=process_index.astype(np.int32),
            annotations=self._annotations,
            rank_known=rank_known,
            notes=notes,
        )

    def _rename_calls(self, table: SpanTable) -> None:
        """Takes the version off the names of API calls and sets the waiting ones apart."""
        calls = np.flatnonzero(table.kind == SpanKind.LAUNCH)
        for index in np.unique(table.name[calls]).tolist():
            text = table.strings[index]
            mine = calls[table.name[calls] == index]
            table.name[mine] = self._names[_VERSIONED.sub("", text)]
            if _SYNC_CALL.search(text):
                table.kind[mine] = SpanKind.SYNC

    def _to_unix(self, path: Path, table: SpanTable, target: Target, notes: list[str]) -> None:
        epoch = target.epoch_of_clock(int(table.start_ns.min(initial=2**62)))
        if epoch is None:
            notes.append(
                f"{path.name}: the start of the session is not recorded: times are relative"
            )
        else:
            table.start_ns[:] += epoch


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _sync_name(kind: int) -> str:
    return _SYNCS.get(kind, "Sync")


def _size_text(key: int) -> str:
    return f"{key >> 32},{key >> 16 & 0xFFFF},{key & 0xFFFF}"


def _copy_name(key: int) -> str:
    source, to = _MEMORIES.get(key >> 8 & 0xFF, "Unknown"), _MEMORIES.get(key & 0xFF, "Unknown")
    return f"Memcpy {COPY_KINDS.get(key >> 16, 'Unknown')} ({source} -> {to})"


def _resource(path: Path, target: Target, device: int, *, alone: bool) -> Resource:
    return Resource(
        rank=target.rank if alone else UNKNOWN,
        world_size=target.world_size if alone else UNKNOWN,
        device=device,
        host=target.host,
        hardware_id=target.hardware_ids.get(device, ""),
        resolution_ns=1,
        source=str(path),
    )
