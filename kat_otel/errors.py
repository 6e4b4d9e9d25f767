"""Every error the package raises on purpose, in one tree.

A message says what was found, where, and what to do about it. Programming
errors stay ordinary exceptions; these are for what users and peers can cause.
"""

from __future__ import annotations

__all__ = [
    "CaptureError",
    "ConfigError",
    "DecodeError",
    "EndpointError",
    "KatError",
    "LogFailedError",
    "LogFullError",
    "LogTooSmallError",
    "MissingDependencyError",
    "TraceFileError",
    "UnreachableError",
]


class KatError(Exception):
    """Root of all errors raised on purpose by this package."""


class TraceFileError(KatError):
    """A trace file could not be read.

    Attributes:
        path: the file.
        place: where in it (``"byte 1,204"``, ``"table StringIds"``), or ``""``.
        problem: what was found.
        remedy: what the user can do.
    """

    def __init__(self, path: str, problem: str, *, place: str = "", remedy: str = "") -> None:
        self.path = path
        self.place = place
        self.problem = problem
        self.remedy = remedy
        where = f"{path} ({place})" if place else path
        super().__init__(f"{where}: {problem}" + (f" — {remedy}" if remedy else ""))


class CaptureError(KatError):
    """Kernels cannot be captured in this process, or not be read by this one.

    Attributes:
        reason: what was found.
        remedy: what the user can do, or ``""``.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason + (f" — {remedy}" if remedy else ""))


class DecodeError(KatError):
    """Bytes on the wire are not a valid OTLP request; sending them again cannot succeed."""


class ConfigError(KatError):
    """A configuration file or option is wrong; the message names the key and its line."""


class LogFullError(KatError):
    """The write-ahead log has no room, by its bound or the disk's; what is sent again may fit."""


class LogTooSmallError(KatError):
    """A request is larger than the write-ahead log may ever be; sent again it still is."""


class LogFailedError(KatError):
    """The write-ahead log could not be written; what it did not take must be sent again."""


class MissingDependencyError(KatError):
    """An optional dependency is needed; the message names the extra that installs it."""


class EndpointError(KatError):
    """The endpoint of a model gave no answer.

    Attributes:
        reason: why, one of ``kat_otel.analyzer.reasons.Failure``.
        status: of HTTP; 0 if it answered nothing.
    """

    def __init__(self, reason: str, message: str, *, status: int = 0) -> None:
        self.reason = reason
        self.status = status
        super().__init__(message)


class UnreachableError(KatError):
    """A server did not answer, or not in time; sent again, the request may succeed."""
