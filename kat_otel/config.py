"""Settings of ``kat process``: one class a section, every default said here and only here.

``collector-config/kat-process.yaml`` shows the same settings with the same defaults; a test
holds the two together. Reading the file is :mod:`kat_otel.processor.config_file`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

__all__ = [
    "AssemblerConfig",
    "CollectiveConfig",
    "Config",
    "DetectorConfig",
    "ExporterConfig",
    "HealthConfig",
    "LogsConfig",
    "MetricsConfig",
    "ReceiverConfig",
    "RetryConfig",
    "TelemetryConfig",
    "TlsConfig",
    "TracesConfig",
]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{value!r} is no duration: write it as 500ms, 5s or 1m30s")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=86_400)]
"""Seconds; written as the collector writes them: ``500ms``, ``5s``, ``1m30s``."""

Endpoint = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}$")]
"""``host:port``, without a scheme."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TlsConfig(_Section):
    """TLS of a gRPC connection; all files are PEM."""

    insecure: bool = True
    """Plain text. Right on loopback and in a pod; across hosts set it to false."""
    ca_file: str | None = None
    """Certificates to trust; the system's if not given."""
    cert_file: str | None = None
    """Own certificate, for mutual TLS; wants key_file as well."""
    key_file: str | None = None
    """Private key of cert_file."""


class ReceiverTlsConfig(_Section):
    """TLS of the receiver; all files are PEM."""

    cert_file: str
    """The server's certificate chain."""
    key_file: str
    """Its private key."""
    client_ca_file: str | None = None
    """If given, clients must show a certificate signed by one of these."""


class ReceiverConfig(_Section):
    """The OTLP gRPC server."""

    endpoint: Endpoint = "127.0.0.1:4327"
    """Where to listen; port 0 picks a free one."""
    tls: ReceiverTlsConfig | None = None
    """TLS of the server; plain text if not given."""
    max_recv_msg_size_mib: int = Field(default=64, ge=1, le=1024)
    """Largest request; gRPC's own limit of 4 MiB is about 12,000 kernel spans."""
    max_concurrent_requests: int = Field(default=4, ge=1, le=256)
    """Threads that decode; a request beyond them waits for its turn."""
    queue_size_mib: int = Field(default=256, ge=1)
    """Decoded spans that may wait for the judge; beyond it senders get UNAVAILABLE."""
    retry_after: Duration = 1.0
    """What an overloaded receiver asks its senders to wait (RetryInfo)."""


class AssemblerConfig(_Section):
    """Putting a step together from the batches of its ranks."""

    decision_wait: Duration = 5.0
    """A step is judged at the latest this long after its first span, complete or not."""
    order_wait: Duration = 0.5
    """How long a complete step waits for the step before it, if that has not been seen."""
    max_pending_steps: int = Field(default=1_000, ge=1)
    """Steps under assembly; beyond it the oldest is judged as it is."""
    max_pending_spans: int = Field(default=5_000_000, ge=1)
    """Spans under assembly; beyond it the oldest step is judged as it is."""
    max_pending_mib: int = Field(default=1_024, ge=1)
    """Memory under assembly; beyond it the oldest step is judged as it is."""
    max_instances: int = Field(default=64, ge=1)
    """Instances with a history; beyond it the one not seen for longest is forgotten."""
    remembered_steps: int = Field(default=128, ge=0)
    """Judged steps an instance remembers, to know late and repeated spans."""


class CollectiveConfig(_Section):
    """A kernel name that is a collective, beside the names that are known."""

    pattern: str
    """Regular expression, searched in the kernel's name regardless of case."""
    semantics: Literal["barrier", "pairwise"] = "barrier"
    """barrier: nobody leaves before the last has come; pairwise: send, receive, all-to-all."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern


class DetectorConfig(_Section):
    """What counts as an incident, and what is a collective."""

    false_alarm_rate: float = Field(default=1e-4, gt=0, lt=1)
    """Chance per step that a healthy step yields a finding."""
    min_impact_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of the step that a late rank must cost to be an incident."""
    page_impact_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of the step that an incident must cost to page."""
    page_occurrences: int = Field(default=3, ge=1)
    """Steps in which an incident must have been seen to page."""
    resolve_after: int = Field(default=20, ge=1)
    """Steps without the incident after which it is resolved."""
    history_steps: int = Field(default=32, ge=1, le=10_000)
    """Healthy steps remembered per shape of step."""
    collectives: tuple[CollectiveConfig, ...] = ()
    """More kernel names that are collectives; they go before the known ones."""


class TracesConfig(_Section):
    """Which spans leave."""

    healthy: Literal["summary", "all"] = "summary"
    """Steps without an incident: the root and one span a rank, or all spans."""
    max_spans_per_trace: int = Field(default=2_000, ge=1)
    """Spans of an exported trace; cited spans and their ancestors are kept even beyond it."""
    whole_steps_per_incident: int = Field(default=10, ge=1)
    """Steps of one incident that leave with all their spans, before whole_interval applies."""
    whole_interval: Duration = 60.0
    """After those, one step of the incident in this long leaves with all its spans."""


class RetryConfig(_Section):
    """Retry of failed exports; only of what the protocol calls retryable."""

    initial_interval: Duration = 1.0
    """Wait before the first retry; doubled each time, with jitter."""
    max_interval: Duration = 30.0
    """Longest wait between two attempts."""
    max_elapsed_time: Duration = 300.0
    """A request older than this is dropped and counted."""


class ExporterConfig(_Section):
    """The OTLP gRPC endpoint that gets traces, logs and metrics."""

    endpoint: Endpoint | None = "127.0.0.1:4337"
    """Where to send; null exports nothing."""
    tls: TlsConfig = TlsConfig()
    """TLS of the connection."""
    headers: dict[str, str] = Field(default_factory=dict[str, str], repr=False)
    """Sent with each request; values are never printed."""
    timeout: Duration = 10.0
    """Deadline of one request."""
    compression: Literal["none", "gzip"] = "none"
    """Of requests; worth its CPU across zones only."""
    queue_size_mib: int = Field(default=64, ge=1)
    """Requests that may wait for the endpoint."""
    queue_wait: Duration = 5.0
    """How long the judge waits for room in a full queue before a request is dropped and counted."""
    retry: RetryConfig = RetryConfig()
    """Retry of failed exports."""


class LogsConfig(_Section):
    """Log events, one per change of an incident."""

    ongoing_interval: Duration = 60.0
    """An incident that merely goes on is logged again after this long."""


class MetricsConfig(_Section):
    """Metrics over OTLP."""

    interval: Duration = 10.0
    """Between two exports; 0 sends none."""


class TelemetryConfig(_Section):
    """What the processor says about itself on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is printed."""


class HealthConfig(_Section):
    """HTTP health check for supervisors."""

    endpoint: Endpoint | None = None
    """Answers GET /healthz with 200 or 503 and the counters; null listens nowhere."""


class Config(_Section):
    """All settings of ``kat process``."""

    receiver: ReceiverConfig = ReceiverConfig()
    assembler: AssemblerConfig = AssemblerConfig()
    detector: DetectorConfig = DetectorConfig()
    traces: TracesConfig = TracesConfig()
    logs: LogsConfig = LogsConfig()
    metrics: MetricsConfig = MetricsConfig()
    exporter: ExporterConfig = ExporterConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    health: HealthConfig = HealthConfig()
    shutdown_timeout: Duration = 20.0
    """After SIGTERM: what is under way is finished within this time, the rest counted as lost."""
