"""Who a worker is: said once by the worker's process, then known to whoever sends its spans."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from kat_otel.errors import DecodeError
from kat_otel.spans import Resource

__all__ = ["Links", "Worker"]


@dataclass(frozen=True, slots=True)
class Worker:
    """One rank of an instance.

    Attributes:
        resource: what stands on its OTLP resource: instance, rank, coordinates, device, host.
        nonce: of the instance, 64 bits; trace ids come from it (:mod:`kat_otel.identity`).
        group_size: ranks that must close a step.
    """

    resource: Resource = field(default_factory=Resource)
    nonce: int = 0
    group_size: int = 1

    def encode(self) -> bytes:
        """Returns the message ``{"worker": {...}}``."""
        said = {
            "resource": asdict(self.resource),
            "nonce": self.nonce,
            "group_size": self.group_size,
        }
        return json.dumps({"worker": said}).encode()

    @staticmethod
    def decode(said: Any) -> Worker:
        """Reads the value of ``worker`` in such a message.

        Raises:
            DecodeError: it is not one.
        """
        try:
            known = {f.name for f in fields(Resource)}
            given = cast(dict[str, Any], said["resource"])
            resource = Resource(**{key: value for key, value in given.items() if key in known})
            return Worker(resource, int(said["nonce"]), int(said["group_size"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"no worker: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Links:
    """Spans of requests that a step worked for: ``{"links": {"step", "micro", "spans"}}``.

    Attributes:
        step, micro: which.
        spans: (trace id, span id) in hexadecimal.
    """

    step: int
    micro: int
    spans: tuple[tuple[str, str], ...]

    def encode(self) -> bytes:
        """Returns the message."""
        said = {"step": self.step, "micro": self.micro, "spans": self.spans}
        return json.dumps({"links": said}).encode()

    @staticmethod
    def decode(said: Any) -> Links:
        """Reads the value of ``links`` in such a message.

        Raises:
            DecodeError: it is not one.
        """
        try:
            pairs = tuple((str(trace), str(span)) for trace, span in said["spans"])
            return Links(int(said["step"]), int(said["micro"]), pairs)
        except (KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"no links: {error!r}") from error
