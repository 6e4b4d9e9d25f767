"""What methods said of the cases, a line a case: an evaluation that was stopped goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from kat_otel.errors import ConfigError, KatError
from kat_otel.lmdia.dataset.plan import Case
from kat_otel.lmdia.scoring.match import Outcome

__all__ = ["Record", "append", "read_records"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One case, judged.

    Attributes:
        case: as planned.
        refused: why it could not be played (a fault that the step's slack hides); "" if it was.
        steps, spans: how many were judged.
        play_s, judge_s: seconds that playing and TTAD took.
        outcomes: of TTAD and its ablations, by name.
        pages: outcome of TTAD's pages alone; None if it was not played.
        opponents: what each other method scored step by step, for thresholds to be chosen later.
    """

    case: Case
    refused: str = ""
    steps: int = 0
    spans: int = 0
    play_s: float = 0.0
    judge_s: float = 0.0
    outcomes: dict[str, Outcome] = {}
    pages: Outcome | None = None
    opponents: dict[str, msgspec.Raw] = {}


_DECODER = msgspec.json.Decoder(Record)


def append(path: Path, record: Record) -> None:
    """Adds a record as one line.

    Raises:
        KatError: the file cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")
    except OSError as error:
        raise KatError(f"{path}: cannot be written ({error.strerror})") from error


def read_records(path: Path) -> list[Record]:
    """Reads the records of a file, none if there is no file; a line that was cut off is taken away.

    Raises:
        ConfigError: the file is of something else, or cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
        if lines[-1]:  # written by an evaluation that was killed
            path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return [_decoded(path, number, line) for number, line in enumerate(lines[:-1], start=1)]


def _decoded(path: Path, number: int, line: bytes) -> Record:
    try:
        return _DECODER.decode(line)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path}, line {number}: no record of an evaluation ({error}): name another --out"
        ) from error


def opponent(record: Record, method: str, of: type[Any]) -> Any:
    """Returns what a method scored on a case, as ``of``."""
    return msgspec.json.decode(record.opponents[method], type=of)
