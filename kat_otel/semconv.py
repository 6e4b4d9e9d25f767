"""Every span, resource and metric name, in one place.

OpenTelemetry's names wherever they exist (``host.name``, ``hw.id``, ``gen_ai.*``),
``gpu.cuda.*`` for what CUPTI says of GPU work, ``kat.*`` for our own.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = "1"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.40.0"
SCOPE_NAME: Final = "kat_otel"

# --- resource: who the worker is, said once, never on a span --------------------------
INSTANCE_ID: Final = "kat.instance.id"
INSTANCE_NONCE: Final = "kat.instance.nonce"
RANK: Final = "kat.rank"
WORLD_SIZE: Final = "kat.world_size"
DEVICE: Final = "kat.device"
TP_RANK: Final = "kat.tp.rank"
PP_RANK: Final = "kat.pp.rank"
DP_RANK: Final = "kat.dp.rank"
EP_RANK: Final = "kat.ep.rank"
RESOLUTION_NS: Final = "kat.clock.resolution_ns"
ENGINE: Final = "kat.engine"
ENGINE_VERSION: Final = "kat.engine.version"
KV_ENGINE_ID: Final = "kat.kv.engine.id"  # what the other side of a KV transfer calls it
KV_REMOTE_ENGINE_ID: Final = "kat.kv.remote.engine.id"
KV_REQUEST_ID: Final = "kat.kv.request.id"
KV_ROLE: Final = "kat.kv.role"  # as the engine says it: kv_producer, kv_consumer, kv_both
SOURCE: Final = "kat.source"
SERVICE_NAME: Final = "service.name"
HOST_NAME: Final = "host.name"
HARDWARE_ID: Final = "hw.id"
RACK: Final = "kat.rack"  # where the host stands and hangs: OpenTelemetry has no names for it
SWITCH: Final = "kat.switch"
MODEL: Final = "gen_ai.request.model"

# --- span: what a worker says of its work ----------------------------------------------
SPAN_KIND: Final = "kat.span.kind"
STEP: Final = "kat.step"
GROUP_SIZE: Final = "kat.group.size"  # ranks that must close the step
SPAN_COUNT: Final = "kat.span.count"  # of the rank in the step, its worker step included
DROPPED_COUNT: Final = "kat.span.dropped"
MICRO: Final = "kat.micro"  # micro-batch of a worker step; left out where there are none
PHASE: Final = "kat.step.phase"  # prefill | decode | mixed, where the engine says it
DUMMY: Final = "kat.step.dummy"  # a data-parallel rank without requests runs along
DIGEST: Final = "kat.digest"  # bytes, on the worker step: kat_otel.digest
DIGEST_NAMES: Final = "kat.digest.names"  # what its hashes stand for, now and then
KERNEL_NAME: Final = "gpu.cuda.kernel.name"
KERNEL_GRID: Final = "gpu.cuda.kernel.grid"
KERNEL_BLOCK: Final = "gpu.cuda.kernel.block"
STREAM_ID: Final = "gpu.cuda.stream.id"
CORRELATION_ID: Final = "gpu.cuda.correlation.id"
GRAPH_ID: Final = "gpu.cuda.graph.id"
GRAPH_NODE_ID: Final = "gpu.cuda.graph_node.id"
BYTES: Final = "kat.bytes"
GROUP: Final = "kat.collective.group"
SEQUENCE: Final = "kat.collective.sequence"
PEER: Final = "kat.collective.peer"  # the other rank of a send or receive, in the communicator
CAPTURE_OVERHEAD_NS: Final = "kat.capture.overhead_ns"  # on the worker step: what tracing cost
THREAD_ID: Final = "thread.id"

# --- what the processor adds -------------------------------------------------------------
ANOMALOUS: Final = "kat.anomalous"
ROLE: Final = "kat.role"  # culprit | victim
INCIDENT_ID: Final = "kat.incident.id"
INCIDENT_IDS: Final = "kat.incident.ids"
KIND: Final = "kat.kind"
COMPONENT: Final = "kat.component"
STATUS: Final = "kat.status"
PAGE: Final = "kat.page"
SCORE: Final = "kat.score"
EXPECTED_NS: Final = "kat.expected_ns"
IMPACT_NS: Final = "kat.impact_ns"
CULPRIT_RANKS: Final = "kat.culprit.ranks"
VICTIM_RANKS: Final = "kat.victim.ranks"
REPORT: Final = "kat.report"
SUMMARY: Final = "kat.summary"
REDUCED_COUNT: Final = "kat.span.reduced"
MISSING_RANKS: Final = "kat.missing_ranks"
LATE: Final = "kat.late"
COVERAGE: Final = "kat.coverage"

EVENT_INCIDENT: Final = "kat.incident"

# --- metrics ----------------------------------------------------------------------------------
METRIC_INCIDENTS: Final = "kat.incidents"
METRIC_IMPACT: Final = "kat.incident.impact"
METRIC_LOST_TIME: Final = "kat.gpu.lost_time"
METRIC_CAUSED_TIME: Final = "kat.rank.caused_gpu_time"  # lost by all, by who made them wait
METRIC_STEP_DURATION: Final = "kat.step.duration"
METRIC_ARRIVAL_SKEW: Final = "kat.collective.arrival_skew"
METRIC_SPANS: Final = "kat.processor.spans"
METRIC_CAPTURE: Final = "kat.capture"  # and what is counted: the worker's sender of itself
REASON: Final = "kat.reason"
