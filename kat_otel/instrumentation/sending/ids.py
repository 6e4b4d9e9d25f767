"""A closed step becomes spans that can leave: ids, the worker's resource, what its own span says.

All ranks derive the same trace id from the instance's nonce, the step and the micro-batch; the
worker step names the root as its parent, which the processor alone emits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import identity, semconv
from kat_otel.digest import digest_of, names_text
from kat_otel.fields import REST
from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.sending.pack import Packer
from kat_otel.instrumentation.steps.step import Step
from kat_otel.spans import NO_PARENT, AttributeValue, SpanTable
from kat_otel.wire import delimited

__all__ = [
    "MICRO_SHIFT",
    "described",
    "digest_span",
    "identified",
    "links_bytes",
    "said_of",
    "with_digest",
]

MICRO_SHIFT: Final = 32
"""Trace ids come from ``step | micro << MICRO_SHIFT``."""

_LINKS_MOST: Final = 128
"""OpenTelemetry's default limit of links on a span."""


def described(step: Step, worker: Worker) -> SpanTable:
    """Returns the step's spans with the worker's resource and what the worker step says of it.

    Ids are not set: a recorded step gets them when somebody asks for it.
    """
    return replace(
        step.table,
        resources=(worker.resource,),
        resource=_all(0, len(step.table), np.int32),
        step=_all(step.step, len(step.table), np.int32),
        attributes={**step.table.attributes, 0: said_of(step, worker)},
    )


def _all(value: int, count: int, dtype: type[np.generic]) -> NDArray[Any]:
    return np.broadcast_to(np.array([value], dtype), count)


def said_of(step: Step, worker: Worker) -> dict[str, AttributeValue]:
    """Returns what the worker step says of the whole step, but for its digest."""
    said: dict[str, AttributeValue] = dict(step.table.attributes.get(0, {}))
    said[semconv.GROUP_SIZE] = worker.group_size
    said[semconv.SPAN_COUNT] = len(step.table)
    said[semconv.DROPPED_COUNT] = step.lost
    if step.micro:
        said[semconv.MICRO] = step.micro
    if phase := _phase(step.flags):
        said[semconv.PHASE] = phase
    if step.flags & StepFlag.DUMMY:
        said[semconv.DUMMY] = True
    if step.links and (links := links_bytes(step.links)):
        said[REST] = links
    return said


def with_digest(step: Step, worker: Worker, digests: Digests, *, named: bool) -> SpanTable:
    """Returns what :func:`described` does, with the digest of the whole on the worker step.

    Args:
        step: of the worker.
        worker: who it is.
        digests: makes it.
        named: whether the digest says what its hashes stand for.
    """
    table = described(step, worker)
    said = {**table.attributes[0], **_digested(step, worker, digests, named=named)}
    return replace(table, attributes={**table.attributes, 0: said})


def _digested(
    step: Step, worker: Worker, digests: Digests, *, named: bool
) -> dict[str, AttributeValue]:
    table = step.table
    said: dict[str, AttributeValue] = {
        semconv.DIGEST: digests.of(table, worker.resource.resolution_ns, step.lost)
    }
    if named:
        said[semconv.DIGEST_NAMES] = names_text(digest_of(table).names)
    return said


def identified(table: SpanTable, rank: int, nonce: int, step: int, micro: int) -> SpanTable:
    """Returns a table of a rank's step with all its ids.

    Args:
        table: worker step in row 0; parents are rows. The first rows of a step's table get the
            same ids as in the whole.
        rank: of the worker.
        nonce: of the instance, or of a capture (:func:`kat_otel.capture.capture_nonce`).
        step, micro: which.
    """
    count = len(table)
    high, low = identity.trace_ids(nonce, np.array([step | micro << MICRO_SHIFT], np.int64))
    # One trace and one rank for all rows: what depends on them is mixed once, by broadcasting.
    ids = identity.span_ids(low, np.array([rank]), np.arange(count))
    root = identity.root_span_id(low)[0]
    parent = np.where(table.parent == NO_PARENT, root, ids[np.maximum(table.parent, 0)])
    return replace(
        table,
        trace_hi=np.broadcast_to(high, count),
        trace_lo=np.broadcast_to(low, count),
        span_id=ids,
        parent_id=parent,
    )


def digest_span(
    packer: Packer, step: Step, worker: Worker, digests: Digests, *, named: bool
) -> bytes:
    """Returns the worker step alone, packed: it says that it is all of its rank's step.

    Args:
        packer: packs it.
        step: whose digest it carries.
        worker: who made it.
        digests: makes the digest.
        named: whether the digest says what its hashes stand for.
    """
    number = step.step | step.micro << MICRO_SHIFT
    ids = identity.worker_step_ids(worker.nonce, number, worker.resource.rank)
    said = {**said_of(step, worker), **_digested(step, worker, digests, named=named)}
    said[semconv.SPAN_COUNT] = 1
    return packer.one(step.table, 0, ids, said)


def links_bytes(links: tuple[tuple[str, str], ...]) -> bytes:
    """Returns span links as fields of an OTLP span; ids that are none are left out.

    They stand beside the attributes under :data:`~kat_otel.fields.REST`, as the decoder puts them.
    """
    packed: list[bytes] = []
    for trace, span in links[:_LINKS_MOST]:
        try:
            pair = bytes.fromhex(trace), bytes.fromhex(span)
        except ValueError:
            continue
        if (len(pair[0]), len(pair[1])) == (16, 8) and any(pair[0]) and any(pair[1]):
            link = delimited(b"\x0a", pair[0]) + delimited(b"\x12", pair[1])
            packed.append(delimited(b"\x6a", link))
    return b"".join(packed)


def _phase(flags: StepFlag) -> str:
    prefill, decode = flags & StepFlag.PREFILL, flags & StepFlag.DECODE
    if prefill and decode:
        return "mixed"
    return "prefill" if prefill else "decode" if decode else ""
