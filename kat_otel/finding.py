"""One line of ``kat doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State"]

State = Literal["ok", "warn", "fail"]
"""``fail``: processor or worker cannot do its work so; ``warn``: it can, but not as well."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and what was found.

    Attributes:
        topic: what was looked at.
        state: how good it is.
        detail: what was found.
        remedy: the command or setting that mends it; ``""`` if nothing needs mending.
    """

    topic: str
    state: State
    detail: str
    remedy: str = ""
