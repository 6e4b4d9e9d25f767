"""``kat process --config F``: YAML in the collector's style, errors with the line they stand in."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final, cast

import pydantic
import yaml

from kat_otel.config import Config
from kat_otel.errors import ConfigError
from kat_otel.processor.settings_tree import Path, holds_text, is_secret, is_section, keys_of

__all__ = ["load_config", "parse_config"]

_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_NULL: Final = {"", "~", "null"}


def load_config(path: FilePath, environment: Mapping[str, str] = os.environ) -> Config:
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
        # Its own text quotes the line, and there may be a secret in it.
        raise ConfigError(f"{name}{_yaml_problem(error)}") from None
    if root is None:
        return Config()
    reading = _Reading(name, environment)
    value = reading.plain(root, ())
    if value is None:
        return Config()
    try:
        return Config.model_validate(value)
    except pydantic.ValidationError as error:
        problems = [_problem(item, name, reading.lines) for item in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = cast(Any, getattr(error, "problem_mark", None))
    what = cast(Any, getattr(error, "problem", None)) or "it cannot be parsed"
    return f"{'' if mark is None else f', line {mark.line + 1}'}: not YAML: {what}"


class _Reading:
    """From YAML nodes to plain values, noting the line of every key."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._environment = environment
        self.lines: dict[Path, int] = {}

    def plain(self, node: yaml.Node, path: Path) -> Any:
        """Returns the node's value."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(cast(list[tuple[yaml.Node, yaml.Node]], node.value), path)
        if isinstance(node, yaml.SequenceNode):
            items = cast(list[yaml.Node], node.value)
            return [self.plain(item, (*path, at)) for at, item in enumerate(items)]
        return self._scalar(node, path)

    def _mapping(self, pairs: list[tuple[yaml.Node, yaml.Node]], path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in pairs:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in found:
                raise ConfigError(f"{self._name}, line {line}: {key!r} is said twice")
            self.lines[*path, key] = line
            value = self.plain(value_node, (*path, key))
            if value is None and is_section((*path, key)):
                continue  # all of its lines are commented out: its defaults
            found[key] = value
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text, tag = str(node.value), str(cast(Any, node).tag)
        line = node.start_mark.line + 1
        if "${" not in text:
            return text if tag == "tag:yaml.org,2002:str" else self._typed(text, path, line)
        replaced = _VARIABLE.sub(lambda match: self._variable(match, line), text)
        if "${" in replaced and not _VARIABLE.search(text):
            shown = "" if is_secret(path) else f"{text!r}: "
            raise ConfigError(
                f"{self._name}, line {line}: {shown}write variables as ${{env:NAME:-default}}"
            )
        if cast(Any, node).style is not None:
            return replaced
        # An unquoted value takes its type from what the variable says, as in the collector;
        # where a text is wanted, 0123 and 1e5 are texts.
        if holds_text(path):
            return None if replaced.lower() in _NULL else replaced
        return self._typed(replaced, path, line)

    def _typed(self, text: str, path: Path, line: int) -> Any:
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2026-13-40
            key = ".".join(map(str, path))
            shown = "" if is_secret(path) else f", found {text!r}"
            raise ConfigError(
                f"{self._name}, line {line}: {key}: no value of YAML{shown}"
            ) from None

    def _variable(self, match: re.Match[str], line: int) -> str:
        key, default = match.group(1), match.group(2)
        value = self._environment.get(key) or default
        if value is None:
            raise ConfigError(
                f"{self._name}, line {line}: environment variable {key} is not set — set it, or "
                f"write ${{env:{key}:-default}}"
            )
        return value


def _problem(item: Any, name: str, lines: dict[Path, int]) -> str:
    location = cast(Path, item["loc"])
    path = location
    while path and path not in lines:
        path = path[:-1]
    where = f"{name}, line {lines.get(path, 1)}"
    key = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        known = keys_of(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f" — did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown setting {key!r}{hint} (known here: {', '.join(known)})"
    hidden = is_secret(location) or isinstance(item["input"], dict | list)
    found = "" if hidden else f", found {item['input']!r}"
    return f"{where}: {key or 'the file'}: {item['msg']}{found}"
