"""Settings of ``kat process``: one class a section, every default said here and only here.

``collector-config/kat-process.yaml`` shows the same settings with the same defaults; a test
holds the two together. Reading the file is :mod:`kat_otel.processor.config_file`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

__all__ = [
    "DURATION_SCHEMA",
    "AnalyzerConfig",
    "AssemblerConfig",
    "AuthConfig",
    "CollectiveConfig",
    "Config",
    "ControlConfig",
    "DebugConfig",
    "DetectorConfig",
    "DigestsConfig",
    "ExporterConfig",
    "HardwareConfig",
    "HealthConfig",
    "HttpReceiverConfig",
    "LogsConfig",
    "MetricsConfig",
    "PrometheusConfig",
    "ReceiverConfig",
    "RetryConfig",
    "ServerTlsConfig",
    "StateConfig",
    "TelemetryConfig",
    "TlsConfig",
    "TracesConfig",
    "WalConfig",
    "on_loopback",
]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_HEADER_KEY = re.compile(r"[a-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{value!r} is no duration: write it as 500ms, 5s or 1m30s")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


DURATION_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "string", "pattern": f"^{_DURATION.pattern}$"},
        {"type": "number", "minimum": 0, "maximum": 86_400},
    ]
}
"""How an editor checks a duration."""

Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0, le=86_400),
    WithJsonSchema(DURATION_SCHEMA),
]
"""Seconds; written as the collector writes them: ``500ms``, ``5s``, ``1m30s``."""

Endpoint = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}$")]
"""``host:port``, without a scheme."""


def on_loopback(endpoint: str) -> bool:
    """Returns whether ``host:port`` names this machine only: there plain text harms nobody."""
    host = endpoint.rpartition(":")[0].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_plain_text(key: str, endpoint: str | None, *, secured: bool, insecure: bool) -> None:
    if endpoint is not None and not (secured or insecure or on_loopback(endpoint)):
        raise ValueError(
            f"{endpoint} is no loopback address and {key} has no tls: give tls.cert_file and "
            "tls.key_file, or say insecure: true if plain text is meant"
        )


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # what is wrong may be a secret, and errors get printed
    )


class TlsConfig(_Section):
    """TLS of a connection to a server; all files are PEM."""

    insecure: bool | None = None
    """Plain text. Not given: plain text to loopback addresses only."""
    ca_file: str | None = None
    """Certificates to trust; the system's if not given."""
    cert_file: str | None = None
    """Own certificate, for mutual TLS; wants key_file as well."""
    key_file: str | None = None
    """Private key of cert_file."""


class ServerTlsConfig(_Section):
    """TLS of a port; all files are PEM."""

    cert_file: str
    """The server's certificate chain."""
    key_file: str
    """Its private key."""
    client_ca_file: str | None = None
    """If given, clients must show a certificate signed by one of these."""


class AuthConfig(_Section):
    """Bearer tokens: who shows one of them in the ``authorization`` header may call."""

    token: SecretStr | None = None
    """The token; take it from ${env:NAME}. Never printed."""
    token_file: str | None = None
    """A file with one token a line, read again when it changes: two lines allow a rotation."""


class _PortConfig(_Section):
    """A port of ours: where it listens and who may call."""

    tls: ServerTlsConfig | None = None
    """TLS of the port; plain text if not given, which is for loopback addresses."""
    insecure: bool = False
    """Plain text on an address that other machines reach: in a pod behind a mesh, say."""
    auth: AuthConfig | None = None
    """Bearer tokens; without it whoever reaches the port may call."""


class HttpReceiverConfig(_PortConfig):
    """The OTLP/HTTP server: protobuf and JSON, plain, gzip or zstd."""

    endpoint: Endpoint | None = None
    """Where to listen, 127.0.0.1:4328 by convention; null listens nowhere."""

    @model_validator(mode="after")
    def _secured(self) -> HttpReceiverConfig:
        secured = self.tls is not None
        _no_plain_text("receiver.http", self.endpoint, secured=secured, insecure=self.insecure)
        return self


class ReceiverConfig(_PortConfig):
    """The OTLP servers; the settings of this level are those of gRPC and the limits of both."""

    endpoint: Endpoint = "127.0.0.1:4327"
    """Where gRPC listens; port 0 picks a free one."""
    http: HttpReceiverConfig = HttpReceiverConfig()
    """OTLP over HTTP."""
    max_recv_msg_size_mib: int = Field(default=64, ge=1, le=1024)
    """Largest request, unpacked; gRPC's own limit of 4 MiB is about 12,000 kernel spans."""
    max_concurrent_requests: int = Field(default=16, ge=1, le=256)
    """Requests under way at once; one beyond them waits for its turn."""
    queue_size_mib: int = Field(default=256, ge=1)
    """Spans that may wait for the judge; beyond it senders get UNAVAILABLE."""
    retry_after: Duration = 1.0
    """What an overloaded receiver asks its senders to wait (RetryInfo, Retry-After)."""
    max_attribute_bytes: int = Field(default=65_536, ge=64)
    """Longest text or bytes of one attribute; a span with a longer one is rejected."""
    max_strings: int = Field(default=1_000_000, ge=1_000)
    """Different texts (kernel names, grids, groups) held at once before they are forgotten."""

    @model_validator(mode="after")
    def _secured(self) -> ReceiverConfig:
        secured = self.tls is not None
        _no_plain_text("receiver", self.endpoint, secured=secured, insecure=self.insecure)
        return self


class WalConfig(_Section):
    """The write-ahead log: what is acknowledged is on disk first."""

    directory: str | None = None
    """Where it lies, one directory a processor; null keeps acknowledged spans in memory only, so
    that a crash loses them. ``kat process`` sets it unless the file does."""
    max_size_mib: int = Field(default=4_096, ge=64)
    """Size of the log; beyond it senders get UNAVAILABLE until spans have left."""


class StateConfig(_Section):
    """What is learnt about an instance (history, open incidents), kept across restarts."""

    directory: str | None = None
    """One file an instance. Shared by all processors (a network volume) it moves with the
    instance; null: in the log's directory, so that it survives a restart but no move."""
    interval: Duration = 10.0
    """How often it is written at most; a new or resolved incident is written at once."""


class DigestsConfig(_Section):
    """Judging the digests that workers send of every step."""

    enabled: bool = True
    """Whether steps without full spans are judged by their digests."""
    judge_interval: Duration = Field(default=0.25, le=60)
    """How long a step with digests alone waits for the next ones of its instance, to be judged with
    them (at most 128 steps and 4,096 digests of an instance wait); 0: for none."""
    capture_steps: int = Field(default=4, ge=1, le=1_000)
    """Steps whose full spans are asked for after a finding."""
    captures_per_hour: int = Field(default=60, ge=0)
    """Most requests for full spans an instance and hour."""


class ControlConfig(_PortConfig):
    """The control channel, where workers ask which steps to send whole."""

    endpoint: Endpoint | None = None
    """Where to listen, 127.0.0.1:4329 by convention; null listens nowhere."""
    mode: Literal["full", "digest", "off"] = "full"
    """What workers send: digests with sampled and asked steps, digests alone, or nothing (the
    kill switch)."""
    sample_every: int | None = Field(default=None, ge=0, le=1_000_000_000)
    """Every so many steps one is sent whole by all ranks; 1 is every step, 0 none; null: what the
    workers' own ``KAT_SAMPLE_EVERY`` says."""
    poll_interval: Duration = Field(default=1.0, gt=0)
    """How often workers ask."""

    @model_validator(mode="after")
    def _secured(self) -> ControlConfig:
        _no_plain_text(
            "control", self.endpoint, secured=self.tls is not None, insecure=self.insecure
        )
        return self


class HardwareConfig(_Section):
    """Joining hardware metrics and logs to incidents."""

    enabled: bool = True
    """Whether they are read; they are passed on in any case."""
    keep: Duration = 600.0
    """How long a reading is remembered."""
    window: Duration = 30.0
    """Readings this long before an incident's first span and after its last belong to it."""
    max_series: int = Field(default=200_000, ge=1)
    """Series remembered (one metric of one device); beyond it the oldest are forgotten."""


class AssemblerConfig(_Section):
    """Putting a step together from the batches of its ranks."""

    decision_wait: Duration = 5.0
    """A step is judged at the latest this long after its first span, complete or not."""
    order_wait: Duration = 0.5
    """How long a complete step waits for the step before it, if that has not been seen."""
    max_pending_steps: int = Field(default=1_000, ge=1)
    """Steps under assembly, of all instances."""
    max_pending_spans: int = Field(default=5_000_000, ge=1)
    """Spans under assembly, of all instances."""
    max_pending_mib: int = Field(default=1_024, ge=1)
    """Memory under assembly, of all instances."""
    over_limit: Literal["judge_early", "refuse"] = "judge_early"
    """Beyond these three: judge_early judges the oldest step as it is; refuse lets senders wait
    until steps are complete, or were waited for long enough."""
    max_step_spans: int = Field(default=4_000_000, ge=1)
    """Spans of a step; beyond it that step is judged as it is, with those before it."""
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
    healthy_interval: Duration = 1.0
    """One step without an incident in this long leaves as a summary, the others are in the metrics
    only; per instance. 0: every step leaves."""
    max_spans_per_trace: int = Field(default=2_000, ge=1, le=10_000)
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
    max_elapsed_time: Duration = 0.0
    """A request tried for longer is dropped and counted; 0 never gives up."""


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
    max_request_mib: float = Field(default=3.5, gt=0, le=1024)
    """Largest request; the endpoint's limit is 4 MiB unless it says otherwise."""
    queue_size_mib: int = Field(default=64, ge=1)
    """Requests that may wait for the endpoint; when it is full, judging waits, then senders."""
    retry: RetryConfig = RetryConfig()
    """Retry of failed exports."""

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        # gRPC refuses others on our side of the wire, and every request with them, for good.
        sent: dict[str, str] = {}
        for key, value in headers.items():
            name, said = key.lower(), value.strip()  # a secret's file ends with a line feed
            if not _HEADER_KEY.fullmatch(name):
                raise ValueError(f"{key!r} is no header: it takes letters, digits, '_', '.', '-'")
            if name.endswith("-bin"):
                raise ValueError(f"{key!r}: gRPC's binary headers are not supported")
            if not _HEADER_VALUE.fullmatch(said):
                raise ValueError(f"the value of {key!r} has other characters than printable ASCII")
            sent[name] = said
        return sent


class AnalyzerConfig(_Section):
    """Asking a language model to explain incidents, which leave before it answers."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """OpenAI-compatible endpoint with its /v1; null asks nobody, and the rules explain."""
    model: str = ""
    """Name of the model at the endpoint."""
    key: SecretStr | None = None
    """Bearer token of the endpoint; take it from ${env:NAME}. Never printed."""
    key_file: str | None = None
    """A file with that token, read at start."""
    insecure: bool = False
    """Plain HTTP to another machine: the facts and the key could be read on the way."""
    send: tuple[Literal["hardware", "logs", "times", "engine", "topology", "coverage"], ...] = (
        "hardware",
        "logs",
        "times",
        "engine",
        "topology",
        "coverage",
    )
    """What may leave beside the facts of traces; names of kernels, hosts and models never do."""
    prose: bool = True
    """Whether the model writes sentences; else it only chooses, which suits small ones."""
    timeout: Duration = Field(default=60.0, gt=0)
    """Of one request."""
    deadline: Duration = Field(default=120.0, gt=0)
    """Of one incident: both answers, retries, all of it."""
    retries: int = Field(default=1, ge=0, le=5)
    """Of a request that may succeed if sent again: no connection, 408, 409, 429, 5xx."""
    max_answer_tokens: int = Field(default=900, ge=100, le=16_000)
    """Of one answer."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Incidents asked about at once."""
    queue: int = Field(default=64, ge=1, le=10_000)
    """Incidents that may wait; beyond it those that cost least are not asked about."""
    max_wait: Duration = Field(default=600.0, gt=0)
    """An incident that waited for longer is not asked about."""
    tokens_per_hour: int = Field(default=500_000, ge=0)
    """Most tokens sent and received in an hour; 0: no limit."""
    money_per_hour: float = Field(default=0.0, ge=0)
    """Most that these may cost, in the unit of the two prices; 0: no limit."""
    price_sent: float = Field(default=0.0, ge=0)
    """Of a million tokens sent."""
    price_received: float = Field(default=0.0, ge=0)
    """Of a million tokens received."""
    breaker_failures: int = Field(default=5, ge=1)
    """Incidents in a row that the endpoint did not answer: then it is left alone for a while."""
    breaker_pause: Duration = Field(default=60.0, ge=1)
    """For so long."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> AnalyzerConfig:
        if self.endpoint is None:
            return self
        if not self.model:
            raise ValueError("an endpoint needs a model: say its name there")
        if self.key is not None and self.key_file is not None:
            raise ValueError("key and key_file: give one of them")
        if self.money_per_hour and not (self.price_sent or self.price_received):
            raise ValueError("money_per_hour needs price_sent and price_received")
        where = urlsplit(self.endpoint)
        if where.username or where.password or not where.hostname:
            raise ValueError("the endpoint has no host, or a password, which is for key to hold")
        plain = where.scheme == "http" and not on_loopback(f"{where.hostname}:{where.port or 80}")
        if plain and not self.insecure:
            raise ValueError(
                f"{self.endpoint} is no loopback address: use https, or say insecure: true if "
                "plain text is meant"
            )
        return self


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
    traces: bool = False
    """Send spans about the processor's own work (decode, assemble, judge, export) to the exporter's
    endpoint."""


class HealthConfig(_PortConfig):
    """HTTP health check for supervisors."""

    endpoint: Endpoint | None = None
    """Answers GET /healthz and /readyz with 200 or 503 and the counters, 127.0.0.1:13133 by
    convention; null listens nowhere."""

    @model_validator(mode="after")
    def _secured(self) -> HealthConfig:
        secured = self.tls is not None
        _no_plain_text("health", self.endpoint, secured=secured, insecure=self.insecure)
        return self


class PrometheusConfig(_PortConfig):
    """The processor's own metrics, for Prometheus to scrape."""

    endpoint: Endpoint | None = None
    """Answers GET /metrics, 127.0.0.1:8888 by convention; null listens nowhere."""

    @model_validator(mode="after")
    def _secured(self) -> PrometheusConfig:
        secured = self.tls is not None
        _no_plain_text("prometheus", self.endpoint, secured=secured, insecure=self.insecure)
        return self


class DebugConfig(_PortConfig):
    """A page with the last steps and verdicts, for people."""

    endpoint: Endpoint | None = None
    """Answers GET /debug/steps, 127.0.0.1:55679 by convention; null listens nowhere."""
    steps: int = Field(default=100, ge=1, le=10_000)
    """Steps shown."""
    reports: int = Field(default=32, ge=0, le=1_000)
    """Incidents whose report is served at GET /incidents/ID, those seen last; 0 serves none."""
    reports_mib: int = Field(default=64, ge=1)
    """MiB of spans kept to draw these reports; beyond it the oldest lose their timeline."""

    @model_validator(mode="after")
    def _secured(self) -> DebugConfig:
        secured = self.tls is not None
        _no_plain_text("debug", self.endpoint, secured=secured, insecure=self.insecure)
        return self


class Config(_Section):
    """All settings of ``kat process``."""

    receiver: ReceiverConfig = ReceiverConfig()
    wal: WalConfig = WalConfig()
    state: StateConfig = StateConfig()
    assembler: AssemblerConfig = AssemblerConfig()
    detector: DetectorConfig = DetectorConfig()
    digests: DigestsConfig = DigestsConfig()
    hardware: HardwareConfig = HardwareConfig()
    control: ControlConfig = ControlConfig()
    analyzer: AnalyzerConfig = AnalyzerConfig()
    traces: TracesConfig = TracesConfig()
    logs: LogsConfig = LogsConfig()
    metrics: MetricsConfig = MetricsConfig()
    exporter: ExporterConfig = ExporterConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    health: HealthConfig = HealthConfig()
    prometheus: PrometheusConfig = PrometheusConfig()
    debug: DebugConfig = DebugConfig()
    shutdown_timeout: Duration = 20.0
    """After SIGTERM: what is under way is finished within this time; the rest stays in the log."""
