"""Tables of the site that are made from the code at build time, so that they cannot lag behind.

A page says ``<!-- made from the code: NAME -->`` where a table belongs. On GitHub the line is not
seen, and the page around it says where the names stand in the sources.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

from kat_otel import semconv
from kat_otel.instrumentation.settings import Settings
from kat_otel.processor.config_schema import config_schema
from kat_otel.processor.defaults import CONVENTIONAL_PORTS
from kat_otel.rules.files import alert_groups
from kat_otel.rules.records import groups as records_groups
from kat_otel.rules.rule import Alert, Record

__all__ = [
    "PARTS",
    "alerts",
    "attributes",
    "metrics",
    "names",
    "processor_settings",
    "records",
    "setup",
]

_MARK: Final = re.compile(r"^<!-- made from the code: ([a-z-]+) -->$", re.MULTILINE)
_SECTION: Final = re.compile(r"# --- (.*?) -+$")
_DURATION: Final = "ms|s|m|h"


def processor_settings() -> str:
    """Returns a heading and a table for each section of ``kat process``'s settings."""
    schema = config_schema()
    return "\n\n".join(_sections(schema, schema["$defs"], "", {}))


def _sections(
    section: dict[str, Any], defs: dict[str, Any], path: str, told: dict[int, str]
) -> Iterator[str]:
    if id(section) in told:  # TLS and tokens are the same on every port
        yield f"### `{path}`\n\nThe same settings as `{told[id(section)]}`."
        return
    told[id(section)] = path
    rows: list[str] = []
    below: list[tuple[str, dict[str, Any]]] = []
    for name, about in section["properties"].items():
        key = f"{path}.{name}" if path else name
        inner = _inner(about, defs)
        if inner is not None:
            below.append((key + "[]" * (about.get("type") == "array"), inner))
            continue
        kind, unit = _kind(about), _unit(name, about)
        default = _default(key, about)
        rows.append(f"| `{key}` | {kind} | {default} | {unit} | {_cell(about['description'])} |")
    title = f"`{path}`" if path else "At the top"
    said = _cell(section.get("description", ""))
    if rows:
        head = "| setting | type | default | unit | meaning |\n|---|---|---|---|---|"
        yield f"### {title}\n\n{said}\n\n{head}\n" + "\n".join(rows)
    for key, inner in below:
        yield from _sections(inner, defs, key, told)


def _inner(about: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the section that a setting is, or a list is made of; ``None`` for a plain one."""
    kinds = [about, *about.get("anyOf", []), about.get("items", {})]
    reference = next((kind["$ref"] for kind in kinds if "$ref" in kind), None)
    return None if reference is None else defs[reference.rpartition("/")[2]]


def _kind(about: dict[str, Any]) -> str:
    kinds = about.get("anyOf", [about])
    if _is_duration(kinds):
        return "duration"
    said: list[str] = []
    for kind in kinds:
        if "enum" in kind:
            said += [f"`{value}`" for value in kind["enum"]]
        elif kind.get("type") == "object":
            said.append("map of texts")
        elif kind.get("type") != "string" or not kind.get("pattern", "").startswith(r"\$\{env"):
            word = {"string": "text", "number": "number", "integer": "whole number"}
            name = word.get(kind.get("type", ""), kind.get("type", "text"))
            said.append(name + _bounds(kind))
    return _cell(" or ".join(said))


def _bounds(kind: dict[str, Any]) -> str:
    least = kind.get("minimum", kind.get("exclusiveMinimum"))
    most = kind.get("maximum", kind.get("exclusiveMaximum"))
    if least is None:
        return ""
    from_ = f"above {least}" if "exclusiveMinimum" in kind else f"{least}"
    if most is None:
        return f", {from_} or more" if "minimum" in kind else f", {from_}"
    return f", {from_} to {most}" if "maximum" in kind else f", {from_}, below {most}"


def _is_duration(kinds: list[dict[str, Any]]) -> bool:
    return any(_DURATION in kind.get("pattern", "") for kind in kinds)


def _unit(name: str, about: dict[str, Any]) -> str:
    if _is_duration(about.get("anyOf", [about])):
        return "s, or as `500ms`, `5s`, `1m30s`"
    if name.endswith("_mib"):
        return "MiB"
    if name.endswith("_bytes"):
        return "bytes"
    if name.endswith(("_fraction", "_rate")):
        return "share, 0 to 1"
    return "count" if _kind(about).startswith("whole") else ""


def _default(key: str, about: dict[str, Any]) -> str:
    if key in CONVENTIONAL_PORTS:
        return f"`{CONVENTIONAL_PORTS[key]}`, where the port is free"
    if "default" not in about:
        return "none: must be given" if key.endswith(("cert_file", "key_file")) else "empty"
    value = about["default"]
    shown = {True: "true", False: "false", None: "null"}
    return f"`{shown[value] if value is None or isinstance(value, bool) else value}`"


def worker_variables() -> str:
    """Returns the table of a worker's environment variables."""
    rows = ["| variable | type | default | unit | meaning |", "|---|---|---|---|---|"]
    types = get_type_hints(Settings)
    for one in fields(Settings):
        default = str(one.default).lower() if isinstance(one.default, bool) else one.default
        default = f"{default:g}" if isinstance(default, float) else default
        shown = f"`{default}`" if default != "" else "empty"
        unit = next((unit for end, unit in _UNITS.items() if one.name.endswith(end)), "")
        doc = _cell(one.metadata["doc"])
        variable, kind = one.metadata["variable"], _python_kind(types[one.name])
        rows.append(f"| `{variable}` | {kind} | {shown} | {unit} | {doc} |")
    return "\n".join(rows)


_UNITS: Final = {"_seconds": "s", "_mib": "MiB", "budget": "share, 0 to 1", "_every": "steps"}


def _python_kind(kind: Any) -> str:
    if choices := get_args(kind):
        return " or ".join(f"`{choice}`" for choice in choices)
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[kind]


def names() -> dict[str, list[tuple[str, str, str]]]:
    """Returns the constants of ``semconv.py`` by section: constant, value, meaning.

    Raises:
        ValueError: a constant has no text under it; it names the constant.
    """
    text = Path(semconv.__file__).read_text(encoding="utf-8")
    headings = [
        (number, found[1])
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := _SECTION.match(line))
    ]
    body = ast.parse(text).body
    out: dict[str, list[tuple[str, str, str]]] = {}
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        constant = node.target.id
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
            raise ValueError(  # noqa: TRY004 - the text of a file is wrong, not a type
                f"semconv.py, line {node.lineno}: {constant} has no text under it that says "
                "what it means: write one"
            )
        section = ([title for line, title in headings if line < node.lineno] or ["versions"])[-1]
        row = (constant, getattr(semconv, constant), _cell(str(after.value.value)))
        out.setdefault(section, []).append(row)
    return out


def attributes() -> str:
    """Returns a table for each section of ``semconv.py`` but the metrics."""
    parts: list[str] = []
    for section, rows in names().items():
        if section in {"versions", "metrics"}:
            continue
        lines = [f"| `{value}` | {meaning} |" for _, value, meaning in rows]
        title = section[0].upper() + section[1:]
        parts.append(f"### {title}\n\n| name | meaning |\n|---|---|\n" + "\n".join(lines))
    return "\n\n".join(parts)


def metrics() -> str:
    """Returns the table of the metrics that leave over OTLP."""
    rows = [(value, said) for name, value, said in names()["metrics"] if name.startswith("METRIC_")]
    lines = [f"| `{value}` | {meaning} |" for value, meaning in rows]
    return "| metric | meaning |\n|---|---|\n" + "\n".join(lines)


def alerts() -> str:
    """Returns the table of the alerting rules; the two of a component stand in one line."""
    rows: dict[tuple[str, str], list[Alert]] = {}
    for group in alert_groups():
        for alert in group.rules:
            if isinstance(alert, Alert):
                rows.setdefault((alert.name, alert.runbook), []).append(alert)
    lines: list[str] = []
    for (name, runbook), found in rows.items():
        page, _, anchor = runbook.partition("#")
        link = page.replace(".html", ".md") + (f"#{anchor}" if anchor else "")
        said = "; ".join(f"**{one.severity}**: {one.when}{_lasts(one)}" for one in found)
        lines.append(f"| [`{name}`]({link}) | {_cell(said)} |")
    return "| alert, and what to do | fires when |\n|---|---|\n" + "\n".join(lines)


def _lasts(alert: Alert) -> str:
    return f" (for {alert.lasts})" if alert.lasts else ""


def records() -> str:
    """Returns the table of the recorded series."""
    found = [one for group in records_groups() for one in group.rules if isinstance(one, Record)]
    lines = [f"| `{one.name}` | {_cell(one.about)} |" for one in found]
    return "| series | meaning |\n|---|---|\n" + "\n".join(lines)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "processor-settings": processor_settings,
    "worker-variables": worker_variables,
    "attributes": attributes,
    "metrics": metrics,
    "alerts": alerts,
    "records": records,
}
"""What a page may ask for."""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("``", "`")


def _fill(_app: Any, docname: str, source: list[str]) -> None:
    def part(found: re.Match[str]) -> str:
        if found[1] not in PARTS:
            raise ValueError(f"{docname}: {found[0]}: there are {', '.join(PARTS)}")
        return PARTS[found[1]]()

    source[0] = _MARK.sub(part, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
