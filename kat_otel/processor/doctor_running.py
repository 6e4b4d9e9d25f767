"""Finds the ``kat process`` that runs on the settings under examination, if there is one.

Two things tell: its health port, as far as it lets us in, and the lock of its write-ahead log,
which the kernel keeps for as long as it lives.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, cast

from kat_otel.config import AuthConfig, Config, HealthConfig, ServerTlsConfig
from kat_otel.processor.directory_lock import holder_of

__all__ = ["Running", "find_running"]

_PATIENCE_S: Final = 5.0
_HOLDER: Final = re.compile(r"process (\d+) on (\S+)")
_LISTENING: Final = "0A"


@dataclass(frozen=True, slots=True)
class Running:
    """A processor that runs.

    Attributes:
        detail: what tells of it, for a person.
        ports: where it listens; None if the kernel does not tell this user.
    """

    detail: str
    ports: frozenset[int] | None = None

    def may_hold(self, endpoint: str) -> bool:
        """Returns whether a port that is taken is its own, for all that is known."""
        return self.ports is None or int(endpoint.rpartition(":")[2]) in self.ports


def find_running(config: Config) -> Running | None:
    """Returns the processor that runs on these settings; None if nothing tells of one."""
    directory = config.wal.directory
    holder = holder_of(Path(directory).expanduser()) if directory is not None else ""
    told = _readiness(config.health)
    if told:
        told = f"{told}: {config.health.endpoint} answers"
    if holder:
        told = ", ".join(filter(None, (told, f"{holder} has the log")))
    return Running(f"runs on these settings, {told}", _ports_of(holder)) if told else None


def _readiness(health: HealthConfig) -> str:
    """Returns whether the processor behind a health port calls itself ready; ``""`` if none does.

    Who it is that answers a plain port is not known, so no token is shown there: another process
    may have the port. One with TLS must show the certificate of the settings.
    """
    if health.endpoint is None:
        return ""
    host, _, port = health.endpoint.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - compared
    scheme = "http" if health.tls is None else "https"
    request = urllib.request.Request(f"{scheme}://{host}:{port}/readyz")  # noqa: S310 - http(s)
    try:
        context = None if health.tls is None else _only(health.tls)
        if context is not None and health.auth is not None:
            request.add_header("authorization", f"Bearer {_token(health.auth)}")
        answer = urllib.request.urlopen(request, timeout=_PATIENCE_S, context=context)  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, ValueError, HTTPException):
        return ""
    try:
        with answer:
            said: Any = json.loads(answer.read(65_536))
    except (OSError, ValueError, HTTPException):
        return ""
    if not isinstance(said, dict) or "conditions" not in said:
        return ""
    return "ready" if cast("dict[str, Any]", said).get("ready") else "not ready"


def _only(tls: ServerTlsConfig) -> ssl.SSLContext:
    """Returns a context that trusts one certificate, whatever name it is for and who signed it."""
    context = ssl.create_default_context(cafile=tls.cert_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _token(auth: AuthConfig) -> str:
    if auth.token is not None:
        return auth.token.get_secret_value().strip()
    lines = Path(auth.token_file or "").read_text(encoding="utf-8").split()
    return lines[-1] if lines else ""


def _ports_of(holder: str) -> frozenset[int] | None:
    """Returns the TCP ports on which a log's holder listens; None if the kernel does not tell."""
    found = _HOLDER.fullmatch(holder)
    if found is None or found[2] != socket.gethostname():
        return None
    process = Path("/proc") / found[1]
    try:
        sockets = {_target(file) for file in (process / "fd").iterdir()}
        lines = [line for name in ("tcp", "tcp6") for line in _lines(process / "net" / name)]
    except OSError:  # another user's, or it has just ended
        return None
    ports = frozenset(
        int(fields[1].rpartition(":")[2], 16)
        for fields in map(str.split, lines)
        if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in sockets
    )
    return ports or None  # it listens somewhere: this kernel does not say where


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except FileNotFoundError:  # closed in the meantime
        return ""


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []
