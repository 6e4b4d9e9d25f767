"""What of new settings can be taken while the processor runs, and what waits for a restart."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel

from kat_otel.config import AuthConfig, Config
from kat_otel.processor.auth import Authenticator

__all__ = ["RESTART_KEYS", "ReloadPlan", "check_tokens", "plan_reload"]

AnySection = TypeVar("AnySection", bound=BaseModel)

_PORT: Final = ("endpoint", "tls", "insecure")

RESTART_KEYS: Final = frozenset(
    {
        *(f"{section}.{key}" for section in ("receiver", "receiver.http") for key in _PORT),
        *(f"{section}.{key}" for section in ("health", "prometheus", "debug") for key in _PORT),
        *(f"control.{key}" for key in _PORT),
        "receiver.max_recv_msg_size_mib",
        "receiver.max_concurrent_requests",
        "receiver.queue_size_mib",
        "receiver.retry_after",
        "receiver.max_attribute_bytes",
        "receiver.max_strings",
        "wal",
        "state",
        "assembler.max_instances",  # bounds what a step's records were made for
        "assembler.remembered_steps",
        "detector.history_steps",  # the size of every history's ring
        *(f"hardware.{key}" for key in ("keep", "window", "max_series")),  # of the store
        "analyzer",  # its client, and what it has learnt of the endpoint
        "exporter.endpoint",
        "exporter.tls",
        "exporter.compression",
    }
)
"""Settings that sockets, files and buffers were made with; a whole section or one key of it."""


class ReloadPlan(NamedTuple):
    """What becomes of new settings.

    Attributes:
        config: the settings to run with: the new ones, but those that need a restart as before.
        changed: keys that are taken.
        restart: keys that differ and wait for a restart.
    """

    config: Config
    changed: list[str]
    restart: list[str]


def plan_reload(old: Config, new: Config) -> ReloadPlan:
    """Returns what of ``new`` can replace ``old`` in a running processor."""
    changed: list[str] = []
    restart: list[str] = []
    config = _merged(old, new, "", changed, restart)
    return ReloadPlan(config, changed, restart)


def check_tokens(config: Config) -> None:
    """Reads the tokens of all ports, so that a bad file is found before anything is changed.

    Raises:
        ConfigError: a token file cannot be read, or there is no token in it.
    """
    sections: dict[str, AuthConfig | None] = {
        "receiver": config.receiver.auth,
        "receiver.http": config.receiver.http.auth,
        "control": config.control.auth,
        "health": config.health.auth,
        "prometheus": config.prometheus.auth,
        "debug": config.debug.auth,
    }
    for section, auth in sections.items():
        Authenticator(auth, f"{section}.auth")


def _merged(
    old: BaseModel, new: AnySection, prefix: str, changed: list[str], restart: list[str]
) -> AnySection:
    """Returns ``new`` with what needs a restart taken from ``old``."""
    values: dict[str, Any] = {}
    for name in type(new).model_fields:
        key = f"{prefix}{name}"
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            values[name] = after
        elif key in RESTART_KEYS:
            restart += _differing(before, after, key)
            values[name] = before
        elif isinstance(before, BaseModel) and isinstance(after, BaseModel):
            values[name] = _merged(before, after, f"{key}.", changed, restart)
        else:
            changed.append(key)
            values[name] = after
    return new.model_copy(update=values)


def _differing(old: Any, new: Any, key: str) -> list[str]:
    """Returns the keys below ``key`` that differ, as exactly as they can be named."""
    if not (isinstance(old, BaseModel) and isinstance(new, BaseModel)):
        return [key]
    names = [name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)]
    return [
        found
        for name in names
        for found in _differing(getattr(old, name), getattr(new, name), f"{key}.{name}")
    ]
