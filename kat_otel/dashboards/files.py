"""The dashboards as files, as Grafana's provisioning and its import take them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from kat_otel.dashboards.fleet import fleet
from kat_otel.dashboards.incident import incident
from kat_otel.dashboards.instance import instance
from kat_otel.dashboards.processor import processor
from kat_otel.errors import KatError

__all__ = ["differing", "files", "write"]


def files() -> Mapping[str, str]:
    """Returns the text of each file by its name."""
    boards = {
        "fleet": fleet(),
        "instance": instance(),
        "incident": incident(),
        "processor": processor(),
    }
    return {
        f"kat-{name}.json": json.dumps(board.build(), cls=JSONEncoder, indent=2, ensure_ascii=False)
        + "\n"
        for name, board in boards.items()
    }


def write(folder: Path) -> list[Path]:
    """Writes all files into a folder, which is made if it is not there.

    Raises:
        KatError: the folder cannot be written.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise KatError(
            f"{folder}: the dashboards cannot be written ({error}): name another folder with --out"
        ) from error
    return written


def differing(folder: Path) -> list[Path]:
    """Returns the files of a folder that are missing or not as they would be written now."""
    return [
        folder / name
        for name, text in files().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]
