"""Bearer tokens: who may call a port. Tokens never appear in messages, logs or representations."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from pathlib import Path
from typing import Final

from kat_otel.config import AuthConfig
from kat_otel.errors import ConfigError

__all__ = ["Authenticator"]

_CHECK_EVERY_S: Final = 1.0
"""How often the token file is looked at, at most."""

logger = logging.getLogger(__name__)


class Authenticator:
    """Answers whether an ``authorization`` header (or gRPC metadata) lets its sender in.

    Args:
        config: the tokens; None lets everybody in.
        key: where the settings are, such as ``receiver.auth``, for messages.

    Raises:
        ConfigError: the token file cannot be read, or there is no token at all.
    """

    def __init__(self, config: AuthConfig | None, key: str = "auth") -> None:
        self._open = config is None
        self._key = key
        self._fixed: tuple[bytes, ...] = ()
        self._file: Path | None = None
        self._tokens: tuple[bytes, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._checked = time.monotonic()
        if config is None:
            return
        if config.token is not None and config.token.get_secret_value().strip():
            self._fixed = (config.token.get_secret_value().strip().encode(),)
        if config.token_file is not None:
            self._file = Path(config.token_file)
            try:
                self._stamp = self._stamp_of(self._file)
                self._tokens = _read(self._file)
            except (OSError, UnicodeDecodeError) as error:
                # The error's own text may quote the file's bytes.
                what = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise ConfigError(
                    f"{key}.token_file: {config.token_file} cannot be read ({what})"
                ) from None
        if not (self._fixed or self._tokens):
            raise ConfigError(
                f"{key}: there is no token, so nobody could call — set {key}.token or write a "
                f"line to {key}.token_file, or leave {key} out"
            )

    def allows(self, header: str | None) -> bool:
        """Returns whether the header carries one of the tokens; takes equally long for all.

        Args:
            header: ``Bearer TOKEN``, the scheme in any case; None if there was none.
        """
        if self._open:
            return True
        scheme, _, token = (header or "").strip().partition(" ")
        if scheme.lower() != "bearer":
            return False
        shown = token.strip().encode(errors="surrogateescape")
        found = False
        for known in self._current():  # no early end: time tells nothing about which token
            found |= hmac.compare_digest(shown, known)
        return found

    def _current(self) -> tuple[bytes, ...]:
        if self._file is None:
            return self._fixed
        with self._lock:
            now = time.monotonic()
            if now - self._checked >= _CHECK_EVERY_S:
                self._checked = now
                self._read_again(self._file)
            return self._fixed + self._tokens

    def _read_again(self, file: Path) -> None:
        try:
            stamp = self._stamp_of(file)
            if stamp == self._stamp:
                return
            tokens = _read(file)
        except (OSError, UnicodeDecodeError):
            # A file that is being replaced is missing for a moment: the tokens known stay
            # good, and the file is looked at again.
            logger.warning("%s.token_file cannot be read now; its last tokens stay", self._key)
            return
        self._stamp = stamp
        if not tokens:
            # Truncated on the way to its new content, most likely; a sender that is told
            # "unauthenticated" drops its spans for good.
            logger.warning("%s.token_file is empty; its last tokens stay", self._key)
            return
        self._tokens = tokens
        logger.info("%s.token_file has changed: %d token(s)", self._key, len(self._tokens))

    @staticmethod
    def _stamp_of(file: Path) -> tuple[int, int, int]:
        said = file.stat()
        return said.st_mtime_ns, said.st_size, said.st_ino


def _read(file: Path) -> tuple[bytes, ...]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(line.encode() for line in lines if line)
