"""Plays a table of spans as if its workers were running: stamps, paces, sends.

What a worker says of itself that a file does not know is made up here: the instance, its
nonce, the count of spans that closes each rank's step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel import semconv
from kat_otel.errors import KatError
from kat_otel.identity import root_span_id, trace_ids
from kat_otel.otlp import Request, encode_requests
from kat_otel.processor.retry_info import DETAILS_KEY, read_retry_delay
from kat_otel.spans import AttributeValue, SpanKind, SpanTable

__all__ = ["EndpointError", "Sent", "send_spans", "stamp"]

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_REQUEST_BYTES: Final = 512 * 1024
_AT_ONCE: Final = 64
_RETRYABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class EndpointError(KatError):
    """The endpoint refused the spans or could not be reached; the message says which and why."""


@dataclass(slots=True)
class Sent:
    """What was sent so far.

    Attributes:
        spans: acknowledged by the endpoint.
        rejected: acknowledged requests' spans that the endpoint rejected for good.
        reason: what it said of the first such.
    """

    spans: int = 0
    rejected: int = 0
    reason: str = ""


def stamp(table: SpanTable, instance: str, nonce: int, start_ns: int | None) -> SpanTable:
    """Returns the spans as workers of a running instance would send them.

    Args:
        table: spans with ids and worker steps, as the readers give them.
        instance: ``kat.instance.id``.
        nonce: tells this replay from all others: trace ids follow from it.
        start_ns: Unix ns at which the first span shall start; None keeps the file's times.
    """
    ranks = sorted({resource.rank for resource in table.resources})
    resources = tuple(
        replace(
            resource,
            instance=instance,
            world_size=resource.world_size if resource.world_size > 0 else len(ranks),
            source=PurePath(resource.source).name,  # the folder is nobody's business
            attributes={semconv.SERVICE_NAME: instance, **resource.attributes},
        )
        for resource in table.resources
    )
    hi, lo = trace_ids(nonce, table.step)
    tops = table.kind == SpanKind.WORKER_STEP
    columns: dict[str, NDArray[Any]] = {
        "trace_hi": hi,
        "trace_lo": lo,
        "parent_id": np.where(tops, root_span_id(lo), table.parent_id),
    }
    if start_ns is not None and len(table):
        columns["start_ns"] = table.start_ns + (start_ns - int(table.start_ns.min()))
    attributes = _closing_counts(table, np.flatnonzero(tops))
    return replace(table.with_columns(**columns), resources=resources, attributes=attributes)


def _closing_counts(
    table: SpanTable, tops: NDArray[np.int64]
) -> dict[int, Mapping[str, AttributeValue]]:
    """Returns all attributes, with what makes each rank's step complete on its worker step."""
    attributes = dict(table.attributes)
    pairs = np.stack([table.step, table.rank], axis=1)
    found, of_row, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    steps, ranks_in = np.unique(found[:, 0], return_counts=True)
    ranks_of_step = dict(zip(steps.tolist(), ranks_in.tolist(), strict=True))
    for row in tops.tolist():
        attributes[row] = {
            **attributes.get(row, {}),
            semconv.GROUP_SIZE: ranks_of_step[int(table.step[row])],
            semconv.SPAN_COUNT: int(counts[of_row[row]]),
        }
    return attributes


def send_spans(
    table: SpanTable,
    endpoint: str,
    *,
    speed: float = 0.0,
    patience: float = 30.0,
    progress: Callable[[Sent], None] | None = None,
) -> Sent:
    """Sends the spans step by step, the ranks of a step side by side, each in its own order.

    Args:
        table: stamped spans.
        endpoint: ``host:port`` of an OTLP gRPC receiver.
        speed: 1 keeps the steps' distances in time, 2 halves them, 0 does not wait.
        patience: how long to go on trying a request that the endpoint cannot take now, s.
        progress: called after each round of requests.

    Raises:
        EndpointError: refused for good, or not taken within ``patience``.
    """
    sent = Sent()
    with grpc.insecure_channel(endpoint) as channel:
        connection: Any = channel
        export: Any = connection.unary_unary(
            _METHOD, response_deserializer=ExportTraceServiceResponse.FromString
        )
        begun = time.monotonic()
        first = int(table.start_ns.min()) if len(table) else 0
        for start_ns, streams in _steps(table):
            if speed > 0:
                due = begun + (start_ns - first) / 1e9 / speed
                time.sleep(max(0.0, due - time.monotonic()))
            for requests in _rounds(streams):
                _send_round(export, requests, endpoint, patience, sent)
                if progress is not None:
                    progress(sent)
    return sent


def _steps(table: SpanTable) -> Iterator[tuple[int, list[Iterator[Request]]]]:
    """Yields each step's start and one stream of requests per rank, in the order of time."""
    steps: list[int] = np.unique(table.step).tolist()
    starts = {step: int(table.start_ns[table.step == step].min()) for step in steps}
    ranks = table.rank
    for step in sorted(steps, key=starts.__getitem__):
        rows = np.flatnonzero(table.step == step)
        members: list[int] = np.unique(ranks[rows]).tolist()
        streams = [
            encode_requests(table, rows[ranks[rows] == rank], limit=_REQUEST_BYTES)
            for rank in members
        ]
        yield starts[step], streams


def _rounds(streams: list[Iterator[Request]]) -> Iterator[list[Request]]:
    """Yields the next request of every stream, a limited number at once, until all are empty."""
    for at in range(0, len(streams), _AT_ONCE):
        some = streams[at : at + _AT_ONCE]
        while requests := [one for one in (next(stream, None) for stream in some) if one]:
            yield requests


def _send_round(
    export: Any, requests: list[Request], endpoint: str, patience: float, sent: Sent
) -> None:
    give_up = time.monotonic() + patience
    wait = 0.1
    while requests:
        answers: list[tuple[Request, Future[ExportTraceServiceResponse]]] = [
            (request, export.future(request.data, timeout=patience)) for request in requests
        ]
        requests = []
        for request, answer in answers:
            error: Any = answer.exception()
            if error is None:
                _count(sent, request, answer.result())
            elif error.code() in _RETRYABLE and time.monotonic() < give_up:
                requests.append(request)
                wait = max(wait, _asked_delay(error))
            else:
                raise EndpointError(_refusal(endpoint, error))
        if requests:
            time.sleep(min(wait, max(0.0, give_up - time.monotonic())))
            wait = min(2 * wait, 5.0)


def _count(sent: Sent, request: Request, response: ExportTraceServiceResponse) -> None:
    rejected = response.partial_success.rejected_spans
    sent.rejected += rejected
    sent.spans += len(request.rows) - rejected
    sent.reason = sent.reason or response.partial_success.error_message


def _asked_delay(error: Any) -> float:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            return read_retry_delay(value) or 0.0
    return 0.0


def _refusal(endpoint: str, error: Any) -> str:
    code = error.code()
    if code in _RETRYABLE:
        remedy = "is the collector or `kat process` running there?"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        remedy = "something answers there, but not an OTLP trace receiver over gRPC"
    else:
        remedy = "the endpoint refused the spans for good; see its log"
    return f"{endpoint}: {code.name}: {error.details()} — {remedy}"
