"""Any readable trace files -> one table of spans: the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kat_otel.errors import TraceFileError
from kat_otel.readers.assemble import assemble
from kat_otel.readers.draft import Draft
from kat_otel.readers.files import ForeignFileError, Format, find_files, sniff
from kat_otel.readers.identify import identify
from kat_otel.readers.kineto import read_kineto
from kat_otel.readers.nsys import read_nsys
from kat_otel.readers.ranks import RankClaim, settle_ranks
from kat_otel.readers.steps import step_in_file_name
from kat_otel.spans import SpanTable

__all__ = ["ReadResult", "read"]

_FOREIGN = "is not a trace that this tool reads"
_READABLE = (
    "readable are PyTorch profiler JSON, Nsight Systems sqlite (nsys export --type sqlite) "
    "and OTLP files of the collector"
)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What :func:`read` returns.

    Attributes:
        table: spans of all files, with ids and parents; the step's root is not among them.
        notes: what was guessed or could not be read as intended, a sentence each.
        errors: files not read, or not to their end; the others are in the table all the same.
        files: the files in the table.
    """

    table: SpanTable
    notes: list[str] = field(default_factory=list[str])
    errors: list[TraceFileError] = field(default_factory=list[TraceFileError])
    files: list[str] = field(default_factory=list[str])


def read(paths: Sequence[str | Path]) -> ReadResult:
    """Reads trace files and folders of them; a file that cannot be read stops no other."""
    found = find_files(paths)
    errors = list(found.errors)
    notes: list[str] = []
    foreign = [path.name for path in found.passed_over]
    tables: list[SpanTable] = []
    claims: list[RankClaim] = []
    relink = False
    default_step = _agreed_step(found.files)
    for path in found.files:
        try:
            draft = _read_one(path)
        except ForeignFileError as error:
            if path in found.named:
                errors.append(error)
            else:
                foreign.append(path.name)
            continue
        except TraceFileError as error:
            errors.append(error)
            continue
        if draft.error is not None:
            errors.append(draft.error)
            if not draft.table.on_gpu.any():
                continue
            notes.append(f"{path.name}: {len(draft.table):,} spans before the damage are read")
        claims.append(RankClaim(str(path), draft.resources, tuple(draft.rank_known)))
        relink |= draft.has_ids
        tables.append(draft.table if draft.has_ids else assemble(draft, default_step))
        notes.extend(draft.notes)
    if foreign:
        notes.append(_foreign_note(foreign))
    resources, rank_notes = settle_ranks(claims)
    tables = [replace(t, resources=r) for t, r in zip(tables, resources, strict=True)]
    files = [claim.file for claim in claims]
    table = identify(tables, files)
    if relink:
        from kat_otel.otlp.link import link_parents  # noqa: PLC0415 - see _read_one

        table = link_parents(table)  # a parent may stand in another file
    return ReadResult(table, notes + rank_notes, errors, files)


def _read_one(path: Path) -> Draft:
    match sniff(path):
        case Format.CHROME_JSON:
            return read_kineto(path)
        case Format.SQLITE:
            return read_nsys(path)
        case Format.OTLP_JSON | Format.OTLP_PROTO as found:
            # Imported late: protobuf takes a tenth of a second that other formats need not pay.
            from kat_otel.readers.otlp_files import read_otlp_json, read_otlp_proto  # noqa: PLC0415

            return (read_otlp_json if found is Format.OTLP_JSON else read_otlp_proto)(path)
        case _:
            raise ForeignFileError(str(path), _FOREIGN, remedy=_READABLE)


def _agreed_step(files: Sequence[Path]) -> int:
    """Returns the step that all file names agree on, else 0."""
    told = {step_in_file_name(path.name) for path in files}
    step = told.pop() if len(told) == 1 else None
    return 0 if step is None else step


def _foreign_note(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,} files in the folders are no traces and were passed over: {shown}"
