"""What the workers of a simulated instance send, and a sender that gives up nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal

import grpc
import numpy as np
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel import semconv
from kat_otel.identity import nonce_of, trace_ids
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.hardware import Cause, Machines
from kat_otel.lmdia.inject import late_launches
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.otlp import encode_traces
from kat_otel.otlp.wire import attribute
from kat_otel.spans import Resource

EXPORT: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
INSTANCE_HEADER = semconv.INSTANCE_ID.replace(".", "-")
LAYERS = 8
DELAY_NS = 5e6
"""What the culprit's host is late by in a faulty step; a healthy one takes about 2 ms."""


_BEGIN_NS = time.time_ns()
_STEP_NS = 20_000_000
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Request:
    """What one rank sends of one step, or its machine of itself."""

    instance: str
    step: int
    rank: int
    data: bytes
    span_ids: frozenset[int] = frozenset()
    signal: Literal["traces", "metrics", "logs"] = "traces"

    def torn(self) -> Request:
        """Returns what leaves of it when the rank dies in the middle: what was over by then."""
        request = ExportTraceServiceRequest.FromString(self.data)
        spans = request.resource_spans[0].scope_spans[0].spans
        over = sorted(spans, key=lambda span: span.end_time_unix_nano)[: len(spans) // 2]
        del spans[:]
        spans.extend(over)
        ids = frozenset(int.from_bytes(span.span_id, "big") for span in over)
        return replace(self, data=request.SerializeToString(), span_ids=ids)

    def padded(self, size: int) -> Request:
        """Returns it with ``size`` bytes more in attributes of the resource."""
        request = ExportTraceServiceRequest.FromString(self.data)
        said = request.resource_spans[0].resource.attributes
        longest = 60_000  # a longer one would be cut
        said.extend(attribute(f"padding.{at}", "x" * longest) for at in range(0, size, longest))
        return replace(self, data=request.SerializeToString())


@dataclass(frozen=True)
class Instance:
    """A running copy of a model, one of whose hosts falls behind in some steps."""

    name: str
    seed: int = 1
    ranks: int = 4
    culprit: int = 2
    begin_ns: int = _BEGIN_NS
    """When its step 0 begins, Unix ns."""

    @property
    def host(self) -> str:
        return f"host-{self.name}"

    def workers(self) -> tuple[Resource, ...]:
        return workers(self.ranks, instance=self.name, host=self.host)

    def steps(self, numbers: Sequence[int], *, faulty: bool = False) -> list[Request]:
        """Returns what all ranks send of these steps, step by step."""
        return [request for number in numbers for request in _step(self, number, faulty)]

    def trace_id(self, step: int) -> str:
        high, low = trace_ids(nonce_of(self.name), np.array([step]))
        return f"{int(high[0]):016x}{int(low[0]):016x}"

    def readings(self, cause: Cause, step: int) -> list[Request]:
        """Returns what its machine says of itself before a step and after it: metrics and logs.

        Args:
            cause: what the culprit's machine suffers from, since that step.
            step: number of the step.
        """
        onset = self.begin_ns + step * _STEP_NS
        machines = Machines(
            self.workers(), cause, self.culprit, onset - 60 * _SECOND, onset, onset + 10 * _SECOND
        )
        return [self._reading(step, said.signal, said.data) for said in machines.requests()]

    def line(self, step: int, text: str) -> Request:
        """Returns a line of a log that the culprit wrote at the time of a step."""
        request = ExportLogsServiceRequest()
        group = request.resource_logs.add()
        group.resource.attributes.append(attribute(semconv.HOST_NAME, self.host))
        record = group.scope_logs.add().log_records.add(
            time_unix_nano=self.begin_ns + step * _STEP_NS
        )
        record.body.string_value = text
        return self._reading(step, "logs", request.SerializeToString())

    def _reading(self, step: int, signal: Literal["metrics", "logs"], data: bytes) -> Request:
        # As the agent does: whose machine it is.
        if signal == "metrics":
            request = ExportMetricsServiceRequest.FromString(data)
            groups = request.resource_metrics
        else:
            request = ExportLogsServiceRequest.FromString(data)
            groups = request.resource_logs
        for group in groups:
            group.resource.attributes.append(attribute(semconv.INSTANCE_ID, self.name))
        whole = request.SerializeToString()
        return Request(self.name, step, self.culprit, whole, signal=signal)


@cache
def _group(instance: Instance) -> tuple[Group, Any]:
    model = replace(LLAMA_70B, layers=LAYERS)
    program = decode_program(model, instance.workers())
    late = late_launches(program, instance.culprit, DELAY_NS, [len(program) // 4])
    return Group(program, instance.seed), late.program


@cache
def _step(instance: Instance, number: int, faulty: bool) -> tuple[Request, ...]:
    group, late = _group(instance)
    program, times = group.play(number, late if faulty else None)
    zero = instance.begin_ns + number * _STEP_NS
    nonce = nonce_of(instance.name)
    requests: list[Request] = []
    for rank in range(instance.ranks):
        table = to_table(program, times, step=number, zero_unix_ns=zero, nonce=nonce, rows=[rank])
        (data,) = encode_traces(table)
        ids = frozenset(table.span_id.view(np.uint64).tolist())
        requests.append(Request(instance.name, number, rank, data, ids))
    return tuple(requests)


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
        self._export = {signal: connection.unary_unary(method) for signal, method in EXPORT.items()}
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
        return self._raw(request.data, request.instance, request.signal)

    def _raw(self, data: bytes, instance: str, signal: str = "traces") -> Any:
        header = [(INSTANCE_HEADER, instance)]
        return self._export[signal].future(data, timeout=30, metadata=header)

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
