"""vLLM's KV-cache transfers between a prefill and a decode instance, as ranges of the host.

A transfer runs from ``start_load_kv`` of the step that orders it to the ``get_finished`` that
reports it; calls that hold the step up are ranges of their own where they take long enough to
matter. The other instance is named by what vLLM calls it, which stands on that instance's
resource as ``kat.kv.engine.id``; its spans are found by that, and by the request's own trace,
where the proxy in front hands the trace context to both.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

from kat_otel import semconv
from kat_otel.instrumentation.engines.hooks import Hook
from kat_otel.instrumentation.guard import Guard
from kat_otel.instrumentation.session import session
from kat_otel.instrumentation.steps.host_ranges import HostRange, HostRanges

__all__ = ["CALLS", "say", "unwatch", "watch"]

_STATE: Final = "vllm.distributed.kv_transfer.kv_transfer_state"
_BASE: Final = "vllm.distributed.kv_transfer.kv_connector.v1.base"
_CALLS: Final = ("start_load_kv", "wait_for_layer_load", "wait_for_save")
_FINISHED: Final = ("get_finished", "get_transfer_results")
CALLS: Final = (
    Hook(_STATE, "_KV_CONNECTOR_AGENT"),
    *(Hook(_BASE, f"KVConnectorBase_V1.{name}") for name in (*_CALLS, _FINISHED[0])),
    Hook(_BASE, f"KVConnectorBase_V1.{_FINISHED[1]}", since="0.33.0"),
)
"""The connector in use is of one of many classes: it is wrapped when it is there."""

_SHORTEST_NS: Final = 20_000
_RANGES: Final = 64  # of one step
_LOADING: Final = 1_024  # requests under way


class _Watched:
    """The process's connector, and what is known of its transfers."""

    def __init__(self) -> None:
        self.connector: Any = None
        self.wrapped: list[str] = []
        self.loading: dict[str, tuple[int, str]] = {}
        self.ranges: list[HostRange] = []
        self.dropped = 0


_watched: Final = _Watched()


def watch() -> None:
    """Wraps the connector in use; called before each step, does nothing the second time."""
    state: Any = sys.modules.get(_STATE)
    connector: Any = None if state is None else getattr(state, "_KV_CONNECTOR_AGENT", None)
    if connector is None or connector is _watched.connector:
        return
    unwatch()
    _watched.connector = connector
    for name in _CALLS:
        _wrap(connector, name, _timed(connector, name))
    for name in _FINISHED:
        _wrap(connector, name, _finished)


def unwatch() -> None:
    """Gives the connector's methods back."""
    for name in _watched.wrapped:
        delattr(_watched.connector, name)
    _watched.wrapped.clear()
    _watched.loading.clear()
    _watched.connector = None


def say() -> None:
    """Hands over the ranges that ended since the last step."""
    if not _watched.ranges:
        return
    ranges, _watched.ranges = tuple(_watched.ranges), []
    step = max(session().steps - 1, 0)
    session().say(HostRanges(step, 0, ranges, _watched.dropped).encode())


_Ours = Callable[[int, Any], None]


def _wrap(connector: Any, name: str, ours: _Ours) -> None:
    method = getattr(connector, name, None)
    if method is None or name in getattr(connector, "__dict__", {name: None}):
        return  # this version has none, or somebody else stands there
    guard = Guard(f"{type(connector).__name__}.{name}", unwatch)

    def around(*args: Any, **kwargs: Any) -> Any:
        begin = time.time_ns()
        result = method(*args, **kwargs)
        guard.run(ours, begin, result)
        return result

    setattr(connector, name, around)
    _watched.wrapped.append(name)


def _timed(connector: Any, name: str) -> _Ours:
    def ours(begin: int, _result: Any) -> None:
        end = time.time_ns()
        if name == "start_load_kv":
            for request, engine in _ordered(connector):
                if len(_watched.loading) < _LOADING:
                    _watched.loading.setdefault(request, (begin, engine))
        if end - begin >= _SHORTEST_NS:
            _add(HostRange(f"kv {name}", begin, end, threading.get_native_id()))

    return ours


def _ordered(connector: Any) -> list[tuple[str, str]]:
    """Requests whose KV cache is to be fetched, and from whom; NIXL's connector says it."""
    metadata: Any = getattr(connector, "_connector_metadata", None)
    wanted: Any = getattr(metadata, "reqs_to_recv", None)
    if not isinstance(wanted, dict):
        return []
    found: list[tuple[str, str]] = []
    for request, one in cast(dict[Any, Any], wanted).items():
        remote: Any = getattr(one, "remote", None)
        engine: Any = getattr(remote, "engine_id", None) or getattr(one, "remote_engine_id", "")
        found.append((str(request), str(engine)))
    return found


def _finished(_begin: int, result: Any) -> None:
    if isinstance(result, tuple):  # get_finished: (sent, received)
        received: Any = cast(tuple[Any, ...], result)[1]
    else:
        received = getattr(result, "finished_recving", None)
    end = time.time_ns()
    for request in received or ():
        begun = _watched.loading.pop(str(request), None)
        if begun is not None:
            attributes: dict[str, str | int] = {semconv.KV_REQUEST_ID: str(request)[:128]}
            if begun[1]:
                attributes[semconv.KV_REMOTE_ENGINE_ID] = begun[1][:128]
            thread = threading.get_native_id()
            _add(HostRange("kv transfer", begun[0], end, thread, attributes))


def _add(one: HostRange) -> None:
    if len(_watched.ranges) < _RANGES:
        _watched.ranges.append(one)
    else:
        _watched.dropped += 1
