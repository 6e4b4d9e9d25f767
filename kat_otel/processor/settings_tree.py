"""What stands where in the settings: the classes of ``config.py`` as a tree of keys.

Whoever reports on settings asks here: which keys are known at a place, what a place holds,
whether it must never be printed.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Final, cast, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from kat_otel.config import DURATION_SCHEMA, Config

__all__ = [
    "Path",
    "field_of",
    "holds_text",
    "is_duration",
    "is_secret",
    "is_section",
    "keys_of",
    "section_of",
]

Path = tuple[str | int, ...]
"""Keys from the root: ``("detector", "collectives", 0, "pattern")``."""

_SECRET_MAPPINGS: Final = {("exporter", "headers")}


def section_of(path: Path) -> type[BaseModel] | None:
    """Returns the class of the section at ``path``; None if no section stands there.

    Sections that may be null and sections in a list count: what they hold has keys, too.
    """
    model: type[BaseModel] | None = Config
    for part in path:
        if isinstance(part, int):
            continue  # an item of a list: the list's own annotation names its class
        field = None if model is None else model.model_fields.get(part)
        model = None if field is None else _section_in(field.annotation)
    return model


def field_of(path: Path) -> FieldInfo | None:
    """Returns the setting at ``path``; None if there is none of that name."""
    if not path or not isinstance(path[-1], str):
        return None
    section = section_of(path[:-1])
    return None if section is None else section.model_fields.get(path[-1])


def keys_of(path: Path) -> list[str]:
    """Returns the keys known in the section at ``path``; none if no section stands there."""
    section = section_of(path)
    return [] if section is None else list(section.model_fields)


def is_section(path: Path) -> bool:
    """Whether ``path`` is a section that is always there: left empty, it means its defaults."""
    field = field_of(path)
    return field is not None and isinstance(field.annotation, type) and _is_model(field.annotation)


def is_secret(path: Path) -> bool:
    """Whether what stands at ``path`` must never be printed.

    A section with a secret in it counts: ``auth: TOKEN`` is a slip that must not tell.
    """
    if any(path[: len(mapping)] == mapping for mapping in _SECRET_MAPPINGS):
        return True
    field = field_of(path)
    if field is None:
        return False
    section = _section_in(field.annotation)
    held = [field] if section is None else section.model_fields.values()
    return any(SecretStr in _flat(found.annotation) for found in held)


def holds_text(path: Path) -> bool:
    """Whether ``path`` takes a text as it stands: ``0123`` is no number there."""
    if any(path[: len(mapping)] == mapping for mapping in _SECRET_MAPPINGS):
        return True
    field = field_of(path)
    return field is not None and not {str, SecretStr}.isdisjoint(_flat(field.annotation))


def is_duration(field: FieldInfo) -> bool:
    """Whether the setting is a duration, written as ``500ms``."""
    return any(getattr(m, "json_schema", None) is DURATION_SCHEMA for m in field.metadata)


def _flat(annotation: Any) -> set[Any]:
    """Returns the annotation and everything in its brackets, at any depth."""
    found = {annotation} if annotation.__hash__ is not None else set[Any]()
    for inner in get_args(annotation):
        if inner is not NoneType and not isinstance(inner, str):
            found |= _flat(inner)
    return found


def _section_in(annotation: Any) -> type[BaseModel] | None:
    models = [found for found in _flat(annotation) if isinstance(found, type) and _is_model(found)]
    return cast("type[BaseModel]", models[0]) if models else None


def _is_model(found: type) -> bool:
    return issubclass(found, BaseModel)
