"""Says who the worker is: ranks, nonce and resource together, apart from the server's threads.

The store of the process group may be slow or gone, so it is asked by a thread of our own, again
and again for a while. Steps are marked meanwhile; whoever sends spans keeps them until it knows.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import unquote

from kat_otel import semconv
from kat_otel.instrumentation.identity import nonce
from kat_otel.instrumentation.identity.ranks import Who, from_environment, torch_store
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.settings import Settings
from kat_otel.spans import UNKNOWN, Resource

__all__ = ["Identifier", "resource_attributes", "worker_of"]

logger: Final = logging.getLogger(__name__)

_LATER: Final = (
    "kat_otel.instrumentation.identity.detector",
    "kat_otel.instrumentation.hardware.gpu_identity",
    "pynvml",
)

WAITS: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds before each try to reach the store: 39 in all."""


def resource_attributes(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` say."""
    found: dict[str, str] = {}
    for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            found[key.strip()] = unquote(value.strip())
    if environment.get("OTEL_SERVICE_NAME"):
        found[semconv.SERVICE_NAME] = environment["OTEL_SERVICE_NAME"]
    return found


def worker_of(
    who: Who,
    shared: nonce.Shared,
    instance: str,
    environment: Mapping[str, str],
    pid: int | None = None,
) -> Worker:
    """Returns what is said of a worker.

    Args:
        who: its ranks.
        shared: its nonce.
        instance: the explicit instance id, or empty.
        environment: of the process.
        pid: the worker's, where this is another process.
    """
    attributes: dict[str, Any] = _detected(environment)
    attributes.update(_hardware(who.device, environment))
    attributes.update(who.attributes)
    attributes.update(resource_attributes(environment))
    attributes.setdefault(semconv.SERVICE_NAME, who.engine)
    attributes["process.pid"] = os.getpid() if pid is None else pid
    attributes[semconv.ENGINE] = who.engine
    if who.version:
        attributes[semconv.ENGINE_VERSION] = who.version
    if who.model:
        attributes[semconv.MODEL] = who.model
    host = str(attributes.pop(semconv.HOST_NAME, "") or socket.gethostname())
    hardware_id = str(attributes.pop(semconv.HARDWARE_ID, ""))
    attributes.pop(semconv.INSTANCE_ID, None)
    name = instance or f"{who.engine}-{shared.nonce:016x}"
    alone = shared.source == "none"  # nobody shares this nonce: a step is whole with this rank
    resource = Resource(
        rank=who.rank,
        world_size=who.world_size,
        instance=name,
        device=who.device,
        host=host,
        hardware_id=hardware_id,
        tp=who.tp,
        pp=who.pp,
        dp=who.dp,
        ep=who.ep,
        attributes=attributes,
    )
    return Worker(resource, shared.nonce, 1 if alone else who.world_size)


def _detected(environment: Mapping[str, str]) -> dict[str, Any]:
    try:
        detector: Any = importlib.import_module("kat_otel.instrumentation.identity.detector")
    except ImportError:
        return {}
    return dict(detector.detect(environment))


def _hardware(device: int, environment: Mapping[str, str]) -> dict[str, Any]:
    if device == UNKNOWN:
        return {}
    try:
        known: Any = importlib.import_module("kat_otel.instrumentation.hardware.gpu_identity")
    except ImportError:
        return {}
    gpu = known.hardware_identity(device, environment)
    found = {
        semconv.HARDWARE_ID: gpu.hw_id,
        "hw.pci.bus_id": gpu.pci_bus_id,
        "hw.model": gpu.name,
    }
    return {key: value for key, value in found.items() if value}


class Identifier:
    """Finds out who this worker is, once, and says it."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        say: Callable[[Worker], None],
        pid: int | None = None,
    ) -> None:
        """Args: ``say`` is called once, from the identifier's thread; ``pid`` as in worker_of."""
        self._pid = pid
        self._settings = settings
        self._environment = environment
        self._say = say
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, who: Callable[[], Who]) -> None:
        """Asks the engine for its ranks at once, and for the nonce in the background.

        Args:
            who: reads the engine's state; called in the caller's thread.
        """
        if self._thread is not None:
            return
        try:
            known = who()
        except Exception as error:  # noqa: BLE001 — the engine's state is not as we know it
            logger.warning("the engine's ranks could not be read (%r): the launcher's count", error)
            known = from_environment(self._environment)
        for module in _LATER:  # not by our thread: a child forked meanwhile could never import it
            with suppress(ImportError):  # said where it is missed
                importlib.import_module(module)
        self._thread = threading.Thread(
            target=self._run, args=(known,), name="kat-otel-identify", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Gives up asking."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Returns whether it is done, after waiting for it at most ``timeout`` seconds."""
        if self._thread is None:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, who: Who) -> None:
        try:
            shared = self._shared(who)
            if shared is not None:
                instance, environment = self._instance(who), self._environment
                self._say(worker_of(who, shared, instance, environment, self._pid))
        except Exception as error:  # noqa: BLE001 — a thread of ours in somebody's server
            logger.warning("who this worker is could not be said: %r; it sends nothing", error)

    def _instance(self, who: Who) -> str:
        said = self._settings.instance
        said = said or resource_attributes(self._environment).get(semconv.INSTANCE_ID, "")
        return f"{said}/{who.replica}" if said and who.replica else said

    def _shared(self, who: Who) -> nonce.Shared | None:
        error: Exception | None = None
        for wait in WAITS:
            if wait and self._stop.wait(wait):  # a short program is asked once all the same
                return None
            try:
                return self._told(who, torch_store())
            except Exception as failed:  # noqa: BLE001 — a store raises what it likes
                error = failed
        logger.warning(
            "the process group's store does not answer (%r): this rank's steps stand alone —"
            " set KAT_INSTANCE_ID, and start anew",
            error,
        )
        return nonce.shared_nonce(
            world_size=1, explicit=self._instance(who), store=None, environment=self._environment
        )._replace(source="none")

    def _told(self, who: Who, store: Any) -> nonce.Shared:
        shared = nonce.shared_nonce(
            world_size=who.world_size,
            explicit=self._instance(who),
            store=cast(nonce.Store | None, store),
            environment=self._environment,
        )
        if shared.source == "none":
            logger.warning(
                "rank %d of %d shares no identity with the others: its steps stand alone —"
                " set KAT_INSTANCE_ID to the same value on all ranks",
                who.rank,
                who.world_size,
            )
        elif shared.source == "explicit":
            logger.warning(
                "KAT_INSTANCE_ID=%s is all that the ranks share: after a restart ids of steps"
                " come again — give each start another value",
                self._settings.instance,
            )
        return shared
