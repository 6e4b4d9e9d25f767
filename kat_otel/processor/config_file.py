"""``kat process --config F``: YAML in the collector's style, errors with the line they stand in."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pydantic
import yaml

from kat_otel.config import Config
from kat_otel.errors import ConfigError

__all__ = ["load_config", "parse_config"]

_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_Path = tuple[str | int, ...]


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Reads the settings from a file.

    Raises:
        ConfigError: unreadable, not YAML, an unknown key or a bad value; with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    return parse_config(text, str(path), environment)


def parse_config(text: str, name: str, environment: Mapping[str, str] = os.environ) -> Config:
    """Reads the settings from YAML text; ``name`` stands in the messages.

    ``${env:NAME}`` and ``${env:NAME:-default}`` are replaced in values, as the collector does.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    try:
        root = cast(yaml.Node | None, cast(Any, yaml).compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {error}") from error
    if root is None:
        return Config()
    lines: dict[_Path, int] = {}
    value = _plain(root, (), lines, name, environment)
    if value is None:
        return Config()
    try:
        return Config.model_validate(value)
    except pydantic.ValidationError as error:
        problems = [_problem(item, name, lines) for item in error.errors()]
        raise ConfigError("\n".join(problems)) from error


def _plain(
    node: yaml.Node,
    path: _Path,
    lines: dict[_Path, int],
    name: str,
    environment: Mapping[str, str],
) -> Any:
    """Returns the node's value and notes the line of every key in ``lines``."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
            key = str(key_node.value)
            at = key_node.start_mark.line + 1
            if key in found:
                raise ConfigError(f"{name}, line {at}: {key!r} is said twice")
            lines[(*path, key)] = at
            found[key] = _plain(value_node, (*path, key), lines, name, environment)
        return found
    if isinstance(node, yaml.SequenceNode):
        items = cast(list[yaml.Node], node.value)
        return [_plain(n, (*path, i), lines, name, environment) for i, n in enumerate(items)]
    text = str(node.value)
    if "${" not in text:
        return _scalar(node.tag, text)
    replaced = _VARIABLE.sub(lambda match: _variable(match, name, line, environment), text)
    if "${" in replaced and not _VARIABLE.search(text):
        raise ConfigError(
            f"{name}, line {line}: {text!r}: write variables as ${{env:NAME:-default}}"
        )
    # An unquoted value takes its type from what the variable says, as in the collector.
    return yaml.safe_load(replaced) if cast(Any, node).style is None else replaced


def _scalar(tag: str, text: str) -> Any:
    return text if tag == "tag:yaml.org,2002:str" else yaml.safe_load(text)


def _variable(match: re.Match[str], name: str, line: int, environment: Mapping[str, str]) -> str:
    key, default = match.group(1), match.group(2)
    value = environment.get(key) or default
    if value is None:
        raise ConfigError(
            f"{name}, line {line}: environment variable {key} is not set — set it, or write "
            f"${{env:{key}:-default}}"
        )
    return value


def _problem(item: Any, name: str, lines: dict[_Path, int]) -> str:
    location = cast(_Path, item["loc"])
    path = location
    while path and path not in lines:
        path = path[:-1]
    where = f"{name}, line {lines.get(path, 1)}"
    key = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _known_keys(location[:-1]), n=1)
        hint = f" — did you mean {near[0]!r}?" if near else ""
        known = ", ".join(_known_keys(location[:-1]))
        return f"{where}: unknown setting {key!r}{hint} (known here: {known})"
    secret = {"headers", "auth", "token"} & set(location) or isinstance(item["input"], dict | list)
    found = "" if secret else f", found {item['input']!r}"
    return f"{where}: {key or 'the file'}: {item['msg']}{found}"


def _known_keys(path: _Path) -> list[str]:
    model: Any = Config
    for part in path:
        annotation = model.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(o for o in options if hasattr(o, "model_fields"))
    return list(model.model_fields)
