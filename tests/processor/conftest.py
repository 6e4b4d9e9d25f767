"""Workers, a judge and a backend to test the processor with; the backend is a real gRPC server."""

import itertools
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel import identity, semconv
from kat_otel.otlp import decode_traces, link_parents
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder, concat
from kat_otel.verdict import (
    Clock,
    Coverage,
    Culprit,
    Evidence,
    Incident,
    Report,
    Source,
    SpanRef,
    Step,
)

KERNELS = 5


class Fleet:
    """Makes the spans of one rank's step: worker step > launch > kernel, five of each."""

    def __init__(self, instance: str = "llama", world_size: int = 4) -> None:
        self.instance = instance
        self.world_size = world_size
        self.nonce = identity.nonce_of(instance)

    def rank(self, rank: int, step: int, *, slow_ns: int = 0, said: bool = True) -> SpanTable:
        """The spans of one rank; ``slow_ns`` lengthens its third kernel."""
        builder = SpanTableBuilder()
        builder.add_resource(
            Resource(rank=rank, world_size=self.world_size, instance=self.instance, host="node1")
        )
        count = 1 + 2 * KERNELS
        hi, lo = identity.trace_ids(self.nonce, np.full(count, step))
        ids = identity.span_ids(lo, np.full(count, rank), np.arange(count))
        begin = 1_700_000_000_000_000_000 + step * 10_000_000
        launch = np.arange(KERNELS)
        parents = np.zeros(count, np.uint64)
        parents[0] = identity.root_span_id(lo[:1])[0]
        parents[1 : 1 + KERNELS] = ids[0]
        parents[1 + KERNELS :] = ids[1 : 1 + KERNELS]
        durations = np.full(KERNELS, 1_000_000)
        durations[2] += slow_ns
        names = [builder.strings.add(f"step {step}")]
        names += [builder.strings.add("cudaLaunchKernel")] * KERNELS
        names += [builder.strings.add(f"void gemm_{k}<float>(int)") for k in range(KERNELS)]
        kinds = [SpanKind.WORKER_STEP, *[SpanKind.LAUNCH] * KERNELS, *[SpanKind.KERNEL] * KERNELS]
        unsaid = {0: {semconv.GROUP_SIZE: self.world_size, semconv.SPAN_COUNT: count}}
        builder.append(
            count,
            attributes=unsaid if said else None,
            trace_hi=hi,
            trace_lo=lo,
            span_id=ids,
            parent_id=parents,
            start_ns=[begin, *(begin + launch * 100_000), *(begin + launch * 1_500_000)],
            duration_ns=[8_000_000 + slow_ns, *[50_000] * KERNELS, *durations],
            name=names,
            kind=kinds,
            step=step,
            stream=[-1] * (1 + KERNELS) + [7] * KERNELS,
            correlation=[-1, *launch, *launch],
        )
        return link_parents(builder.build())

    def step(self, step: int, **slow: int) -> list[SpanTable]:
        """One table a rank; ``rank2=5_000_000`` makes rank 2 slow by 5 ms."""
        return [
            self.rank(rank, step, slow_ns=slow.get(f"rank{rank}", 0))
            for rank in range(self.world_size)
        ]


class StandInJudge:
    """Blames the rank whose kernel takes longer than 4 ms; one incident for all steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.first_seen = 0
        self.occurrences = 0

    def judge(self, table: SpanTable) -> Report:
        step = int(table.step.max())
        self.steps.append(step)
        begin, end = int(table.start_ns.min()), int(table.end_ns.max())
        slow = np.flatnonzero((table.kind == SpanKind.KERNEL) & (table.duration_ns > 4_000_000))
        ranks = sorted({int(r) for r in table.rank})
        incidents = [self.incident(table, slow, step, begin)] if len(slow) else []
        return Report(
            source=Source(
                files=[],
                ranks=ranks,
                world_size=len(ranks),
                resolution_ns=1,
                clock=Clock(state="aligned", max_offset_ns=0),
            ),
            coverage=Coverage(spans=len(table), kernels=0, aligned=0, unmatched=0, notes=[]),
            steps=[Step(step=step, start_unix_nano=begin, duration_ns=end - begin, ranks=ranks)],
            incidents=incidents,
        )

    def judge_steps(self, table: SpanTable, bounds: list[int]) -> list[Report]:
        parts = (np.arange(first, last) for first, last in itertools.pairwise(bounds))
        return [self.judge(table.take(part)) for part in parts]

    def incident(self, table: SpanTable, rows: np.ndarray, step: int, begin: int) -> Incident:
        new = not self.first_seen
        self.first_seen = self.first_seen or begin
        self.occurrences += 1
        row = int(rows[0])
        trace = f"{int(table.trace_hi[row]):016x}{int(table.trace_lo[row]):016x}"
        rank = int(table.rank[row])
        return Incident(
            id="incident-1",
            status="open" if new else "ongoing",
            first_seen=self.first_seen,
            last_seen=begin,
            occurrences=self.occurrences,
            steps=[step],
            page=False,
            kind="slow_kernel",
            scope="kernel",
            culprit=Culprit(ranks=[rank], devices=[], hosts=[], sure=True),
            victims=[r for r in sorted(set(table.rank.tolist())) if r != rank],
            group=None,
            link=None,
            component="gpu_compute",
            component_candidates=[],
            component_confidence=0.5,
            impact_ns=5_000_000,
            score=9.0,
            false_alarm_probability=1e-6,
            spans=[
                SpanRef(
                    rank=rank,
                    stream=7,
                    name=table.name_of(row),
                    start_unix_nano=int(table.start_ns[row]),
                    duration_ns=int(table.duration_ns[row]),
                    expected_ns=1_000_000,
                    trace_id=trace,
                    span_id=f"{int(table.span_id[row]):016x}",
                )
            ],
            evidence=[
                Evidence(id="e1", text="slow", signal="duration", value=6, expected=1, unit="ms")
            ],
        )


class Backend(grpc.GenericRpcHandler):
    """An OTLP server that answers as told and keeps what it took."""

    def __init__(
        self, credentials: grpc.ServerCredentials | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.answers: queue.Queue[tuple[grpc.StatusCode, tuple]] = queue.Queue()
        self.detail = "as told"
        self.rejected = 0
        self.attempts = 0
        self.tables: list[SpanTable] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.changed = threading.Condition()
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self.port = (
            self.server.add_secure_port(f"{host}:0", credentials)
            if credentials
            else self.server.add_insecure_port(f"{host}:0")
        )
        self.server.start()

    def service(self, details):
        def export(data, context):
            with self.changed:
                self.attempts += 1
                self.changed.notify_all()
                if not self.answers.empty():
                    code, metadata = self.answers.get()
                    context.set_trailing_metadata(metadata)
                    context.abort(code, self.detail)
                return self.take(details.method, data)

        return grpc.unary_unary_rpc_method_handler(export)

    @contextmanager
    def hanging(self):
        """Takes requests and answers none of them."""
        taken, answer = self.take, threading.Event()

        def take(method, data):
            self.changed.release()  # held by the caller
            answer.wait(60)
            self.changed.acquire()
            return taken(method, data)

        self.take = take
        try:
            yield
        finally:
            answer.set()
            self.take = taken

    def take(self, method: str, data: bytes) -> bytes:
        if "trace" in method:
            self.tables.append(decode_traces(data))
            response = ExportTraceServiceResponse()
            response.partial_success.rejected_spans = self.rejected
        elif "logs" in method:
            self.logs.append(ExportLogsServiceRequest.FromString(data))
            response = ExportLogsServiceResponse()
            response.partial_success.rejected_log_records = self.rejected
        else:
            self.metrics.append(ExportMetricsServiceRequest.FromString(data))
            response = ExportMetricsServiceResponse()
            response.partial_success.rejected_data_points = self.rejected
        self.changed.notify_all()
        return response.SerializeToString()

    @property
    def spans(self) -> SpanTable:
        """Everything received, parents linked."""
        with self.changed:
            return link_parents(concat([SpanTable.empty(), *self.tables]))

    def spans_unlocked(self) -> SpanTable:
        """As ``spans``, for conditions, which hold the lock already."""
        return concat([SpanTable.empty(), *self.tables])

    def wait_for(self, condition, timeout: float = 20.0) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "the backend waited in vain"


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def make_fleet() -> type[Fleet]:
    return Fleet


@pytest.fixture
def judge_class() -> type[StandInJudge]:
    return StandInJudge


@pytest.fixture
def backend():
    backend = Backend()
    yield backend
    backend.server.stop(0).wait()


@pytest.fixture
def make_backend():
    """Returns a function that starts a backend, with TLS or on another address."""
    backends = []

    def start(tls=None, host: str = "127.0.0.1") -> Backend:
        credentials = None
        if tls is not None:
            pair = tuple(Path(file).read_bytes() for file in (tls.key_file, tls.cert_file))
            clients = Path(tls.client_ca_file).read_bytes() if tls.client_ca_file else None
            credentials = grpc.ssl_server_credentials([pair], clients, clients is not None)
        backends.append(Backend(credentials, host))
        return backends[-1]

    yield start
    for backend in backends:
        backend.server.stop(0).wait()


@pytest.fixture
def connect():
    """Returns a function that sends raw bytes to a port's TraceService."""
    channels = []

    def open_to(port: int):
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        channels.append(channel)
        return channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            response_deserializer=ExportTraceServiceResponse.FromString,
        )

    yield open_to
    for channel in channels:
        channel.close()
