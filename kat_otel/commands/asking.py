"""How commands ask a running ``kat process``: a request over HTTP, errors that say what to do."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
import msgspec
import urllib3

from kat_otel.errors import KatError, UnreachableError

__all__ = ["RefusedError", "Server", "control_options", "debug_options", "operator"]

_TIMEOUT_S: Final = 10.0
_PREAMBLE: Final = re.compile(r".*(?:Connection|Pool)\([^)]*\)?>?\)?: (?:Failed to [^:]*: )?")
_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)

Command = TypeVar("Command", bound=Callable[..., Any])


class RefusedError(KatError):
    """The processor answered, and does not do what it was asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A port of a running processor.

    Attributes:
        endpoint: with its scheme.
        section: the settings that open the port, such as ``control``.
        token_file: where the bearer token is; the variable ``KAT_<SECTION>_TOKEN`` counts if None.
        ca_file: PEM file of the authority to trust; the system's if None.
    """

    endpoint: str
    section: str
    token_file: Path | None = None
    ca_file: Path | None = None

    def ask(self, method: str, path: str, body: Any = None, timeout: float = _TIMEOUT_S) -> bytes:
        """Returns what the processor answers.

        Args:
            method: of HTTP.
            path: below the endpoint.
            body: sent as JSON; None sends none.
            timeout: seconds.

        Raises:
            UnreachableError: nothing answers there.
            RefusedError: it does not do it, or does not know the token.
        """
        url = f"{self.endpoint.rstrip('/')}{path}"
        headers = {"accept": "application/json"}
        if token := self._token():
            headers["authorization"] = f"Bearer {token}"
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            with urllib3.PoolManager(
                ca_certs=str(self.ca_file) if self.ca_file else None, retries=False, timeout=timeout
            ) as pool:
                data = None if body is None else msgspec.json.encode(body)
                answer = pool.request(method, url, body=data, headers=headers)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(
                f"{url} does not answer ({_said(error)}): is {self.section}.endpoint of kat "
                "process this one?"
            ) from error
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise RefusedError(
                f"{url}: the token is missing or wrong: --token-file or {self._variable}"
            )
        if answer.status != HTTPStatus.OK:
            raise RefusedError(_reason(answer.data) or self._strange(url, answer.status))
        return answer.data

    def ask_json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Returns what the processor answers, as an object.

        Raises:
            UnreachableError: nothing answers there.
            RefusedError: it does not do it, or answers with something else.
        """
        try:
            said: Any = msgspec.json.decode(self.ask(method, path, body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RefusedError(self._strange(self.endpoint, HTTPStatus.OK)) from error
        if not isinstance(said, dict):
            raise RefusedError(self._strange(self.endpoint, HTTPStatus.OK))
        return cast(dict[str, Any], said)

    def _strange(self, url: str, status: int) -> str:
        return (
            f"{url} answered {status} and nothing that a {self.section} port of this version "
            "says: is this kat process, and no older one?"
        )

    @property
    def _variable(self) -> str:
        return f"KAT_{self.section.upper()}_TOKEN"

    def _token(self) -> str:
        if self.token_file is None:
            return os.environ.get(self._variable, "").strip()
        return self.token_file.read_text(encoding="utf-8").strip()


def operator() -> str:
    """Returns who asks, ``USER@HOST``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def control_options(command: Command) -> Command:
    """Adds the options that say where the control port is, and who may call it."""
    return _options("http://127.0.0.1:4329", "control")(command)


def debug_options(command: Command) -> Command:
    """Adds the options that say where the debug port is, and who may call it."""
    return _options("http://127.0.0.1:55679", "debug")(command)


def _options(endpoint: str, section: str) -> Callable[[Command], Command]:
    variable = f"KAT_{section.upper()}_TOKEN"

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--ca-file",
                type=_FILE,
                help="PEM file of the authority to trust; the system's if not given.",
            ),
            click.option(
                "--token-file",
                type=_FILE,
                help=f"File with the bearer token; without it the variable {variable} counts.",
            ),
            click.option(
                "--endpoint",
                default=endpoint,
                show_default=True,
                help=f"{section}.endpoint of kat process, with its scheme.",
            ),
        ):
            command = option(command)
        return command

    return add


def _reason(data: bytes) -> str:
    try:
        said: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return str(cast(dict[str, Any], said).get("error", "")) if isinstance(said, dict) else ""


def _said(error: Exception) -> str:
    """Returns what went wrong without the connection that urllib3's messages name."""
    return _PREAMBLE.sub("", str(error))
