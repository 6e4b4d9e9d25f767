"""What the workers of a simulated instance send, and a sender that gives up nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import grpc
import numpy as np

from kat_otel import semconv
from kat_otel.identity import nonce_of
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import late_launches
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.otlp import encode_traces

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
INSTANCE_HEADER = semconv.INSTANCE_ID.replace(".", "-")
LAYERS = 8
DELAY_NS = 5e6
"""What the culprit's host is late by in a faulty step; a healthy one takes about 2 ms."""


@dataclass(frozen=True)
class Request:
    """What one rank sends of one step."""

    instance: str
    step: int
    rank: int
    data: bytes
    span_ids: frozenset[int]


@dataclass(frozen=True)
class Instance:
    """A running copy of a model, one of whose hosts falls behind in some steps."""

    name: str
    seed: int = 1
    ranks: int = 4
    culprit: int = 2

    def steps(self, numbers: Sequence[int], *, faulty: bool = False) -> list[Request]:
        """Returns what all ranks send of these steps, step by step."""
        return [request for number in numbers for request in _step(self, number, faulty)]


@cache
def _group(instance: Instance) -> tuple[Group, Any]:
    model = replace(LLAMA_70B, layers=LAYERS)
    hosts = workers(instance.ranks, instance=instance.name, host=f"host-{instance.name}")
    program = decode_program(model, hosts)
    late = late_launches(program, instance.culprit, DELAY_NS, [len(program) // 4])
    return Group(program, instance.seed), late.program


@cache
def _step(instance: Instance, number: int, faulty: bool) -> tuple[Request, ...]:
    group, late = _group(instance)
    program, times = group.play(number, late if faulty else None)
    zero = _BEGIN_NS + number * 20_000_000
    nonce = nonce_of(instance.name)
    requests: list[Request] = []
    for rank in range(instance.ranks):
        table = to_table(program, times, step=number, zero_unix_ns=zero, nonce=nonce, rows=[rank])
        (data,) = encode_traces(table)
        ids = frozenset(table.span_id.view(np.uint64).tolist())
        requests.append(Request(instance.name, number, rank, data, ids))
    return tuple(requests)


_BEGIN_NS = time.time_ns()


def span_ids(requests: Sequence[Request]) -> set[int]:
    """Returns the ids of all their spans."""
    return set().union(*(request.span_ids for request in requests))


def absent(requests: Sequence[Request], missing: set[int]) -> str:
    """Returns what each step and rank misses, for a failed test's message."""
    lacks = [(r.step, r.rank, len(r.span_ids & missing), len(r.span_ids)) for r in requests]
    return ", ".join(
        f"step {step} rank {rank} {lost} of {count}" for step, rank, lost, count in lacks if lost
    )


class Sender:
    """Sends requests over OTLP gRPC, each until it is acknowledged; a context manager.

    Args:
        endpoint: ``host:port``.
        patience: seconds for which a request is tried.
    """

    def __init__(self, endpoint: str, *, patience: float = 60.0) -> None:
        self._channel = grpc.insecure_channel(endpoint, [("grpc.max_reconnect_backoff_ms", 500)])
        connection: Any = self._channel
        self._export = connection.unary_unary(EXPORT)
        self._patience = patience
        self.acknowledged: set[int] = set()
        self.refusals = 0

    def send(self, requests: Sequence[Request], *, at_once: int = 16, pause: float = 0.0) -> None:
        """Sends in this order, some at once, and returns when all are acknowledged."""
        for some in _chunks(requests, at_once):
            give_up = time.monotonic() + self._patience
            left = list(some)
            while left:
                calls = [(request, self._call(request)) for request in left]
                left = [request for request, call in calls if not self._taken(request, call)]
                if left:
                    assert time.monotonic() < give_up, f"{len(left)} requests not taken"
                    self.refusals += len(left)
                    time.sleep(0.2)  # what the refusal asks for is a second
            time.sleep(pause)

    def refused_for_good(self, data: bytes, instance: str) -> grpc.StatusCode | None:
        """Sends some bytes once and returns the error's code, None if they were taken."""
        error: Any = self._raw(data, instance).exception()
        return error.code() if error else None

    def _call(self, request: Request) -> Any:
        return self._raw(request.data, request.instance)

    def _raw(self, data: bytes, instance: str) -> Any:
        return self._export.future(data, timeout=30, metadata=[(INSTANCE_HEADER, instance)])

    def _taken(self, request: Request, call: Any) -> bool:
        error: Any = call.exception()
        if error is None:
            self.acknowledged |= request.span_ids
            return True
        retryable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert error.code() in retryable, f"{error.code()}: {error.details()}"
        return False

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def _chunks(requests: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    for first in range(0, len(requests), size):
        yield requests[first : first + size]
