"""Cases on disk: three modalities with one clock, and the truth beside them.

A folder a case: ``traces.pb.gz`` (OTLP requests, each after its length in four bytes, as
collectors' file exporters write them: ``kat analyze FOLDER`` reads it), ``traces.parquet`` (a row
a span), ``metrics.otlp.gz`` and ``logs.otlp.gz`` (OTLP as the exporters of the machines would
send them), ``affected.parquet`` (ids of the spans whose own times a fault changed) and
``label.json``, which is written last: a folder without one is half of a case and made anew.
The same case makes the same rows and, but for Parquet's own padding, the same bytes.
"""

from __future__ import annotations

import gzip
import importlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from kat_otel.errors import ConfigError, KatError
from kat_otel.lmdia.dataset.played import Played
from kat_otel.lmdia.label import Label
from kat_otel.otlp.encode import encode_traces
from kat_otel.spans import SpanKind, SpanTable

__all__ = ["LABEL", "has_case", "read_label", "write_case"]

LABEL: Final = "label.json"
_TEXTS: Final = ("name", "grid", "block", "group")
_NUMBERS: Final = (
    "step", "trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns", "thread",
    "stream", "correlation", "graph", "graph_node", "bytes", "sequence",
)  # fmt: skip


def has_case(folder: Path) -> bool:
    """Returns whether a whole case lies in the folder."""
    return (folder / LABEL).is_file()


def read_label(folder: Path) -> Label:
    """Reads the truth about a case.

    Raises:
        ConfigError: it is not there or is none; the message names the file.
    """
    path = folder / LABEL
    try:
        return msgspec.json.decode(path.read_bytes(), type=Label)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: no label of a case ({error}): make the case anew") from error


def write_case(played: Played, folder: Path, *, parquet: bool = True) -> int:
    """Plays a case into a folder, a step at a time; what was there of it is replaced.

    Args:
        played: the case.
        folder: made if it is not there.
        parquet: whether to write the tables as well.

    Returns:
        How many spans were written.

    Raises:
        KatError: the folder cannot be written, or Parquet was asked for without pyarrow.
    """
    spans = 0
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with ExitStack() as stack:
            traces = stack.enter_context(_compressed(folder / "traces.pb.gz"))
            tables = stack.enter_context(_Tables(folder)) if parquet else None
            for step in played.steps():
                spans += len(step.table)
                for data in encode_traces(step.table):
                    _append(traces, data)
                if tables:
                    tables.add(step.table, step.affected)
            for signal in ("metrics", "logs"):
                with _compressed(folder / f"{signal}.otlp.gz") as file:
                    for request in played.requests():
                        if request.signal == signal:
                            _append(file, request.data)
        label = msgspec.json.format(msgspec.json.encode(played.label), indent=1)
        (folder / LABEL).write_bytes(label)
    except OSError as error:
        raise KatError(f"{folder}: cannot be written ({error.strerror})") from error
    return spans


def _compressed(path: Path) -> gzip.GzipFile:
    # No time in the header: the same case makes the same bytes.
    return gzip.GzipFile(path, "wb", compresslevel=6, mtime=0)


def _append(file: gzip.GzipFile, data: bytes) -> None:
    file.write(len(data).to_bytes(4, "big"))
    file.write(data)


class _Tables:
    """The Parquet files of a case, a row group a step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, table: SpanTable, affected: Iterable[Any]) -> None:
        """Writes one step."""
        pa = _arrow()
        self._write("traces", pa.table(dict(_columns(table, pa))))
        ids = [np.asarray(of_fault, np.uint64) for of_fault in affected]
        numbers = [np.full(len(i), n, np.int16) for n, i in enumerate(ids)]
        if ids:
            changed = {"fault": np.concatenate(numbers), "span_id": np.concatenate(ids)}
            self._write("affected", pa.table(changed))

    def _write(self, name: str, table: Any) -> None:
        if name not in self._writers:
            path = self._folder / f"{name}.parquet"
            self._writers[name] = _arrow("pyarrow.parquet").ParquetWriter(
                path, table.schema, compression="zstd"
            )
        self._writers[name].write_table(table)


def _columns(table: SpanTable, pa: Any) -> Iterator[tuple[str, Any]]:
    workers = table.resources
    of = table.resource
    yield "rank", np.array([w.rank for w in workers], np.int32)[of]
    for name, texts in (
        ("host", [w.host for w in workers]),
        ("hardware_id", [w.hardware_id for w in workers]),
    ):
        yield name, pa.DictionaryArray.from_arrays(pa.array(of), pa.array(texts))
    kinds = [kind.name.lower() for kind in SpanKind]
    yield "kind", pa.DictionaryArray.from_arrays(pa.array(table.kind.astype(np.int32)), kinds)
    texts = list(table.strings)
    for name in _TEXTS:
        numbers: Any = getattr(table, name)
        used, index = np.unique(numbers, return_inverse=True)
        chosen = pa.array([texts[i] for i in used.tolist()])
        yield name, pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), chosen)
    for name in _NUMBERS:
        yield name, getattr(table, name)


def _arrow(module: str = "pyarrow") -> Any:
    """Returns a module of pyarrow, which has no types of its own and is an extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise KatError(
            "Parquet needs 'pyarrow', which is not installed: pip install 'kat-otel[lmdia]', or "
            "leave the tables out with --no-parquet"
        ) from error
