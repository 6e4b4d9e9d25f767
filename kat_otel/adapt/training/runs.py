"""A run's folder: what it was begun with, its checkpoints, the adapter, and how it went.

``run.json`` says what was begun, ``checkpoint-N`` where it can go on, ``adapter`` is what was
trained, and ``trained.json``, written last, that it is done.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from kat_otel.adapt.training.config import TrainingConfig
from kat_otel.errors import ConfigError

__all__ = ["ADAPTER", "Begun", "Trained", "begin", "begun", "data_digest", "finish", "trained"]

ADAPTER: Final = "adapter"
_BEGUN: Final = "run.json"
_DONE: Final = "trained.json"
_WHOLE: Final = "trainer_state.json"
"""What the trainer writes last into a checkpoint: without it, it was stopped in the middle."""
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was begun with.

    Attributes:
        config: all of its settings.
        data: SHA-256 of the examples that it is trained on.
        versions: of the libraries.
    """

    config: TrainingConfig
    data: str
    versions: dict[str, str]


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went.

    Attributes:
        steps: of how many; fewer where it was stopped.
        examples: that it was trained on.
        loss: mean over the tokens of the answers, in the last step that told it; None if none did.
        seconds: of the last call of the command.
        losses: by step, as told.
    """

    steps: int
    planned: int
    examples: int
    loss: float | None
    seconds: float
    losses: dict[int, float]


def data_digest(*files: Path) -> str:
    """Returns the SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def begin(folder: Path, new: Begun) -> Path | None:
    """Makes the folder of a run, or goes on with the one that is there.

    Returns:
        The checkpoint to go on from; None to start.

    Raises:
        ConfigError: the folder holds a run with other settings or examples, or something else.
    """
    old = _read(folder / _BEGUN, Begun)
    if old is None:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: holds other files — name a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _BEGUN, new)
        return None
    if old.config != new.config or old.data != new.data:
        what = "settings" if old.config != new.config else "examples"
        raise ConfigError(
            f"{folder}: holds a run with other {what} — name a new folder with --out, or remove it"
        )
    found = [
        (int(name[1]), path)
        for path in folder.iterdir()
        if (name := _CHECKPOINT.fullmatch(path.name)) and (path / _WHOLE).is_file()
    ]
    return max(found)[1] if found else None


def begun(folder: Path) -> Begun:
    """Returns what a run was begun with.

    Raises:
        ConfigError: there is none.
    """
    found = _read(folder / _BEGUN, Begun)
    if found is None:
        raise ConfigError(f"{folder}: holds no run — train one: kat adapt train --out {folder}")
    return found


def finish(folder: Path, how: Trained) -> None:
    """Notes how a run went."""
    _write(folder / _DONE, how)


def trained(folder: Path) -> Trained | None:
    """Returns how a run went; None if it has not come to its end."""
    return _read(folder / _DONE, Trained)


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}) — name a new folder") from error


def _write(path: Path, what: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(what), indent=2) + b"\n")
