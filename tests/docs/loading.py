"""The documentation's own machinery: Sphinx loads it by path, and so do the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]


def loaded(path: Path) -> ModuleType:
    """Returns a module that lies outside all packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extension(name: str) -> ModuleType:
    """Returns an extension of the site."""
    return loaded(REPOSITORY / "docs" / "_ext" / f"{name}.py")
