"""The published JSON Schema of the report.

``python -m kat_otel.report.schema`` writes it anew after a change of the classes in
:mod:`kat_otel.verdict`; a test fails if the published file lags behind them.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from kat_otel.verdict import json_schema

__all__ = ["SCHEMA_FILE", "published_schema", "schema_text"]

SCHEMA_FILE = "kat.report.v1.schema.json"


def schema_text() -> str:
    """Returns the schema as the classes define it, as the file should read."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def published_schema() -> dict[str, Any]:
    """Returns the schema file of the package, for whoever validates reports."""
    return json.loads((resources.files("kat_otel.report") / SCHEMA_FILE).read_text("utf-8"))


if __name__ == "__main__":
    target = Path(__file__).with_name(SCHEMA_FILE)
    target.write_text(schema_text(), encoding="utf-8")
    sys.stdout.write(f"wrote {target}\n")
