"""PyTorch and what trains with it: imported when asked for, for nothing else here needs them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from kat_otel.errors import MissingDependencyError

__all__ = ["INSTALL", "Libraries", "libraries"]

INSTALL: Final = "pip install 'kat-otel[processor,adapt]'"
_NAMES: Final = ("torch", "transformers", "datasets", "peft", "trl")


@dataclass(frozen=True, slots=True)
class Libraries:
    """The modules, by name; none has types that say more."""

    torch: Any
    transformers: Any
    datasets: Any
    peft: Any
    trl: Any

    @property
    def versions(self) -> dict[str, str]:
        """The version of each."""
        return {name: version(name) for name in _NAMES}


def libraries() -> Libraries:
    """Imports them: seconds, and some hundred MiB of memory.

    Raises:
        MissingDependencyError: one is not installed.
    """
    try:
        return Libraries(*(import_module(name) for name in _NAMES))
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"training needs {', '.join(_NAMES)}, and {error.name} is not installed: {INSTALL}"
        ) from error
