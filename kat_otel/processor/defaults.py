"""What ``kat process`` adds to the settings: the usual ports, and a directory for the log.

The classes of ``config.py`` listen nowhere but for gRPC, so that a processor embedded in another
program, or in a test, opens nothing unasked. A service has supervisors and people around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from kat_otel.config import Config
from kat_otel.errors import ConfigError
from kat_otel.processor.listen import bind

__all__ = ["CONVENTIONAL_PORTS", "shut", "taken_ports", "with_defaults"]

CONVENTIONAL_PORTS: Final[dict[str, str]] = {
    "receiver.http.endpoint": "127.0.0.1:4328",
    "control.endpoint": "127.0.0.1:4329",
    "health.endpoint": "127.0.0.1:13133",
    "prometheus.endpoint": "127.0.0.1:8888",
    "debug.endpoint": "127.0.0.1:55679",
}
"""Where the ports listen that the settings say nothing of; the collector's own conventions."""

_LOG: Final = "wal.directory"
_LIKE_RECEIVER: Final = ("receiver.http", "control")


def with_defaults(
    config: Config, environment: Mapping[str, str] = os.environ
) -> tuple[Config, frozenset[str]]:
    """Returns the settings completed, and the keys that were filled in.

    What the file says holds, null too: ``debug: {endpoint: null}`` is a port that stays shut. The
    log goes to ``$XDG_STATE_HOME/kat-otel/PORT`` (``~/.local/state`` if that is not set), so that
    the same processor finds it again. With ``receiver.endpoint`` on port 0, which is another one
    at every start, nothing is filled in: whoever wants that wants to disturb nobody.

    A port for senders that is filled in asks for the certificates and tokens that the receiver's
    gRPC port asks for: no door may be opened beside one that was locked.
    """
    port = config.receiver.endpoint.rpartition(":")[2]
    if int(port) == 0:
        return config, frozenset()
    state = Path(environment.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    offered = {**CONVENTIONAL_PORTS, _LOG: str(state / "kat-otel" / port)}
    filled = {key: value for key, value in offered.items() if not _is_said(config, key)}
    for key, value in filled.items():
        section = key.rpartition(".")[0]
        more: dict[str, Any] = {}
        if section in _LIKE_RECEIVER:
            names = [name for name in ("tls", "auth") if not _is_said(config, f"{section}.{name}")]
            more = {name: getattr(config.receiver, name) for name in names}
        config = _replaced(config, section.split("."), {key.rpartition(".")[2]: value, **more})
    return config, frozenset(filled)


def taken_ports(config: Config, filled: Iterable[str]) -> dict[str, str]:
    """Returns the filled-in ports that cannot be had now, each with the reason.

    The collector on the same host listens on some of them: that is no error, as nobody asked.
    """
    others = {_port_of(config, key) for key in _endpoints() if key not in filled}
    found: dict[str, str] = {}
    for key in sorted(CONVENTIONAL_PORTS.keys() & set(filled)):
        endpoint = CONVENTIONAL_PORTS[key]
        if _port_of(config, key) in others:
            found[key] = f"{endpoint} is used by another setting"
            continue
        try:
            for sock in bind(endpoint, key):
                sock.close()
        except ConfigError:
            found[key] = f"another process listens on {endpoint}"
    return found


def shut(config: Config, keys: Iterable[str]) -> Config:
    """Returns the settings with the given ports shut."""
    for key in keys:
        section, _, name = key.rpartition(".")
        config = _replaced(config, section.split("."), {name: None})
    return config


def _endpoints() -> list[str]:
    return ["receiver.endpoint", *CONVENTIONAL_PORTS]


def _port_of(config: Config, key: str) -> str:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return str(value).rpartition(":")[2]


def _is_said(config: Config, key: str) -> bool:
    """Whether the file has the key, whatever value it gives."""
    section: Any = config
    *path, last = key.split(".")
    for name in path:
        if name not in section.model_fields_set:
            return False
        section = getattr(section, name)
    return last in section.model_fields_set


def _replaced(section: Any, path: list[str], values: Mapping[str, Any]) -> Any:
    """Returns a copy of the section with settings of one of its sections changed."""
    if path:
        values = {path[0]: _replaced(getattr(section, path[0]), path[1:], values)}
    return section.model_copy(update=values)
