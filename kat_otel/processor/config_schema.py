"""The published JSON Schema of the settings, for editors.

``python -m kat_otel.processor.config_schema`` writes ``collector-config/kat-process.schema.json``
anew after a change of the classes in :mod:`kat_otel.config`; a test fails if the file lags
behind them. ``kat-process.yaml`` names it in its first line, where yaml-language-server looks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, cast

from kat_otel.config import DURATION_SCHEMA, Config
from kat_otel.processor.effective import duration_text

__all__ = ["SCHEMA_FILE", "config_schema", "schema_text"]

SCHEMA_FILE = "kat-process.schema.json"

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_SCALARS: Final = {"string", "number", "integer", "boolean"}


def config_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a settings file."""
    schema = Config.model_json_schema()
    sections = cast("dict[str, Any]", schema.pop("$defs"))
    for section in [schema, *sections.values()]:
        section.pop("title", None)
        section["properties"] = {
            name: _section(found, sections) if "$ref" in found else _setting(found)
            for name, found in section["properties"].items()
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_FILE,
        "title": "Settings of kat process",
        **schema,
        "$defs": sections,
    }


def schema_text() -> str:
    """Returns the schema as the file should read."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(found: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a section that may be left empty."""
    about = sections[str(found["$ref"]).rpartition("/")[2]].get("description", "")
    return {"description": about, "anyOf": [{"$ref": found["$ref"]}, {"type": "null"}]}


def _setting(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of one setting, which a variable of the environment may fill."""
    about = {key: found.pop(key) for key in ("description", "default") if key in found}
    kinds = [
        # An editor offers no value for a secret that is only written, never read.
        {k: v for k, v in kind.items() if k not in {"title", "writeOnly"} and v != "password"}
        for kind in found.get("anyOf", [found])
    ]
    if _is_duration(kinds) and isinstance(about.get("default"), float):
        about["default"] = duration_text(about["default"])
    scalar = any(kind.get("type") in _SCALARS or "enum" in kind for kind in kinds)
    if scalar and {"type": "string"} not in kinds:
        kinds.append(_VARIABLE)
    return {**about, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}


def _is_duration(kinds: list[dict[str, Any]]) -> bool:
    return all(kind in kinds for kind in DURATION_SCHEMA["anyOf"])


if __name__ == "__main__":
    target = Path(__file__).parents[2] / "collector-config" / SCHEMA_FILE
    target.write_text(schema_text(), encoding="utf-8")
    sys.stdout.write(f"wrote {target}\n")
