"""The settings in force, as a person may see them: every one of them, secrets hidden."""

from __future__ import annotations

from typing import Any, Final, cast

import yaml
from pydantic import BaseModel, SecretStr

from kat_otel.config import Config
from kat_otel.processor.settings_tree import Path, field_of, is_duration, is_secret

__all__ = ["HIDDEN", "duration_text", "effective", "effective_yaml"]

HIDDEN: Final = "(hidden)"


def effective(config: Config) -> dict[str, Any]:
    """Returns all settings as plain values, durations as text, secrets as :data:`HIDDEN`."""
    return {name: _shown(getattr(config, name), (name,)) for name in Config.model_fields}


def effective_yaml(config: Config) -> str:
    """Returns all settings as a settings file would say them."""
    return yaml.safe_dump(effective(config), sort_keys=False, allow_unicode=True)


def duration_text(seconds: float) -> str:
    """Returns seconds as the settings file writes them: ``500ms``, ``5s``, ``1m30s``."""
    rest, text = round(seconds * 1e6), ""
    for unit, size in (("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        if rest >= size:
            text += f"{rest // size}{unit}"
            rest %= size
    return text + (f"{rest / 1e3:g}ms" if rest else "") or "0s"


def _shown(value: Any, path: Path) -> Any:
    if isinstance(value, BaseModel):
        fields = sorted(type(value).model_fields, key=lambda name: name != "endpoint")
        return {name: _shown(getattr(value, name), (*path, name)) for name in fields}
    if isinstance(value, SecretStr) or (is_secret(path) and isinstance(value, str)):
        return HIDDEN
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return {key: _shown(item, (*path, key)) for key, item in items.items()}
    if isinstance(value, tuple | list):
        members = cast("tuple[Any, ...]", value)
        return [_shown(item, (*path, at)) for at, item in enumerate(members)]
    field = field_of(path)
    if field is not None and is_duration(field):
        return duration_text(float(value))
    return value
