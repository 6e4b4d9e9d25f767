"""The whole processor over real gRPC: spans in, judged steps out, the books balanced."""

import json
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kat_otel import identity, semconv
from kat_otel.config import (
    AssemblerConfig,
    Config,
    ExporterConfig,
    HealthConfig,
    ReceiverConfig,
    TracesConfig,
)
from kat_otel.fields import REST
from kat_otel.otlp import encode_traces
from kat_otel.otlp.rest import events_of
from kat_otel.processor.retry_info import DETAILS_KEY, read_retry_delay
from kat_otel.processor.server import Processor, ProcessorFailedError
from kat_otel.spans import SpanKind
from tests.processor.receiving import Pki


def config(port: int | None, **sections) -> Config:
    settings = {
        "receiver": ReceiverConfig(endpoint="127.0.0.1:0"),
        "exporter": ExporterConfig(endpoint=f"127.0.0.1:{port}" if port else None),
    }
    return Config(**settings | sections)


def send(export, *tables) -> None:
    for table in tables:
        for data in encode_traces(table):
            export(data, timeout=20)


def balanced(processor: Processor) -> dict[str, int]:
    balance = processor.books.balance()
    assert balance.pending == 0, str(balance)
    return dict(balance.counts)


def test_a_slow_kernel_is_marked_and_carries_the_report(fleet, backend, connect, judge_class):
    reports = []
    processor = Processor(
        config(backend.port),
        judge=judge_class,
        on_report=lambda report, table: reports.append((report, table)),
    )
    with processor:
        send(connect(processor.port), *fleet.step(1), *fleet.step(2, rank2=5_000_000))
        backend.wait_for(lambda: len(backend.tables) >= 2 or len(backend.spans) >= 50)
    assert [report.steps[0].step for report, _ in reports] == [1, 2]
    assert reports[1][0].incidents[0].culprit.ranks == [2]
    assert reports[1][0].instance.id == "llama"
    spans = backend.spans
    healthy, bad = (spans.take(spans.step == step) for step in (1, 2))
    # A healthy step leaves as its root and one span a rank, and says what was left out.
    assert sorted(healthy.kind.tolist()) == [SpanKind.STEP] + [SpanKind.WORKER_STEP] * 4
    root = int((healthy.kind == SpanKind.STEP).argmax())
    assert healthy.attributes[root][semconv.REDUCED_COUNT] == 40
    assert healthy.span_id[root] == identity.root_span_id(healthy.trace_lo[:1])[0]
    # The step with the incident leaves whole; every span hangs below the root.
    assert len(bad) == 1 + 4 * 11
    assert (bad.parent < 0).sum() == 1
    culprits = [row for row, said in bad.attributes.items() if said.get(semconv.ROLE) == "culprit"]
    assert len(culprits) == 1
    row = culprits[0]
    assert (bad.rank[row], bad.name_of(row)) == (2, "void gemm_2<float>(int)")
    assert bad.attributes[row][semconv.ANOMALOUS] is True
    assert bad.attributes[row][semconv.EXPECTED_NS] == 1_000_000
    event, diagnosis = events_of(bad.attributes[row])
    assert event.name == semconv.EVENT_INCIDENT
    told = json.loads(event.attributes[semconv.REPORT])
    assert told["culprit"]["ranks"] == [2]
    assert diagnosis.name == semconv.EVENT_DIAGNOSIS
    assert json.loads(diagnosis.attributes[semconv.DIAGNOSIS]) == told["diagnosis"]
    root = int((bad.kind == SpanKind.STEP).argmax())
    assert events_of(bad.attributes[root])[0].attributes[semconv.SUMMARY].startswith("rank 2")
    assert balanced(processor) == {"acknowledged": 88, "forwarded": 48, "summarised": 40}


def test_incidents_leave_as_log_events_and_as_metrics(fleet, backend, connect, judge_class):
    with Processor(config(backend.port), judge=judge_class) as processor:
        export = connect(processor.port)
        for step in range(4):
            send(export, *fleet.step(step, rank1=5_000_000))
    records = [
        record
        for request in backend.logs
        for record in request.resource_logs[0].scope_logs[0].log_records
    ]
    # Four steps of one incident are two events: it opened, it goes on.
    said = [{a.key: a.value for a in record.attributes} for record in records]
    assert [s[semconv.STATUS].string_value for s in said] == ["open", "ongoing"]
    assert {record.event_name for record in records} == {semconv.EVENT_INCIDENT}
    assert "rank 1" in records[0].body.string_value
    report = json.loads(said[0][semconv.REPORT].string_value)
    assert records[0].span_id.hex() == report["spans"][0]["span_id"]
    metrics = {
        metric.name: metric
        for metric in backend.metrics[-1].resource_metrics[0].scope_metrics[0].metrics
    }
    duration = metrics[semconv.METRIC_STEP_DURATION].histogram.data_points[0]
    assert duration.count == 4
    assert 0.03 < duration.sum < 0.06
    incident = metrics[semconv.METRIC_INCIDENTS].sum.data_points[0]
    labels = {a.key: a.value for a in incident.attributes}
    assert (incident.as_int, labels[semconv.RANK].int_value) == (1, 1)
    assert labels[semconv.COMPONENT].string_value == "gpu_compute"
    assert metrics[semconv.METRIC_IMPACT].gauge.data_points[0].as_double == pytest.approx(0.005)
    # What a step lost, every rank of it lost; and all of it because of one.
    lost = sum(p.as_double for p in metrics[semconv.METRIC_LOST_TIME].sum.data_points)
    assert lost == pytest.approx(4 * 0.005 * fleet.world_size)
    caused = {
        a.value.int_value: point.as_double
        for point in metrics[semconv.METRIC_CAUSED_TIME].sum.data_points
        for a in point.attributes
        if a.key == semconv.RANK
    }
    assert caused == dict.fromkeys(range(fleet.world_size), 0.0) | {1: pytest.approx(lost)}


def test_a_poison_request_is_refused_for_good_and_the_good_ones_around_it_are_judged(
    fleet, backend, connect, judge_class
):
    with Processor(config(backend.port), judge=judge_class) as processor:
        export = connect(processor.port)
        first, *others = fleet.step(0)
        send(export, first)
        with pytest.raises(grpc.RpcError) as caught:
            export(b"\xff\xff\xff", timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "3 bytes" in caught.value.details()
        send(export, *others)
    assert processor.books.marked("steps complete") == 1
    assert balanced(processor)["acknowledged"] == 44


def test_single_bad_spans_are_told_in_the_partial_success(fleet, connect, judge_class):
    with Processor(config(None), judge=judge_class) as processor:
        table = fleet.rank(0, 0)
        ids = table.span_id.copy()
        ids[3] = 0
        response = connect(processor.port)(
            b"".join(encode_traces(table.with_columns(span_id=ids))), timeout=20
        )
    assert response.partial_success.rejected_spans == 1
    assert "spans[3]" in response.partial_success.error_message
    counts = balanced(processor)
    assert (counts["acknowledged"], counts["invalid"]) == (10, 1)


def test_over_the_limits_of_assembly_senders_wait_if_the_settings_say_so(
    fleet, backend, connect, judge_class
):
    limits = AssemblerConfig(decision_wait=0.5, max_pending_spans=30, over_limit="refuse")
    with Processor(config(backend.port, assembler=limits), judge=judge_class) as processor:
        export = connect(processor.port)
        send(export, *(fleet.rank(0, step) for step in range(3)))
        refused = []
        (data,) = encode_traces(fleet.rank(0, 3))
        for _ in range(200):
            try:
                export(data, timeout=20)
                break
            except grpc.RpcError as error:
                refused.append(error)
                time.sleep(0.05)
    assert {error.code() for error in refused} == {grpc.StatusCode.UNAVAILABLE}
    waits = [read_retry_delay(dict(e.trailing_metadata())[DETAILS_KEY]) for e in refused]
    assert min(waits) > 0
    assert balanced(processor)["acknowledged"] == 44


def test_an_oversize_request_is_refused_for_good(connect, judge_class):
    receiver = ReceiverConfig(endpoint="127.0.0.1:0", max_recv_msg_size_mib=1)
    with Processor(config(None, receiver=receiver), judge=judge_class) as processor:
        export = connect(processor.port)
        with pytest.raises(grpc.RpcError) as large:
            export(bytes(2**20 + 1), timeout=20)
        with pytest.raises(grpc.RpcError) as huge:
            export(bytes(3 * 2**20), timeout=20)
    assert large.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    # gRPC's own answer: without RetryInfo senders take it for permanent, as they should.
    assert huge.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert DETAILS_KEY not in dict(huge.value.trailing_metadata())


def test_overload_is_unavailable_with_the_time_to_wait(fleet, connect, judge_class):
    import threading

    entered, go_on = threading.Event(), threading.Event()

    class StuckJudge(judge_class):
        def judge(self, table):
            entered.set()
            assert go_on.wait(20)
            return super().judge(table)

    receiver = ReceiverConfig(endpoint="127.0.0.1:0", queue_size_mib=1, retry_after=2.5)
    with Processor(config(None, receiver=receiver), judge=StuckJudge) as processor:
        export = connect(processor.port)
        send(export, *fleet.step(0))
        assert entered.wait(20)
        one = b"".join(encode_traces(fleet.rank(0, 1)))
        answers = [export.future(one, timeout=20) for _ in range(2 * 2**20 // len(one))]
        refused = [answer.exception() for answer in answers if answer.exception()]
        go_on.set()
    assert 0 < len(refused) < len(answers)
    caught = refused[0]
    assert caught.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(caught.trailing_metadata())[DETAILS_KEY]
    assert read_retry_delay(details) == 2.5
    counts = balanced(processor)
    assert counts["dropped:repeated"] > 0


def test_an_incomplete_step_is_judged_after_the_wait_and_names_the_missing_rank(
    fleet, backend, connect, judge_class
):
    reports = []
    quick = AssemblerConfig(decision_wait=0.2)
    with Processor(
        config(backend.port, assembler=quick),
        judge=judge_class,
        on_report=lambda report, _: reports.append(report),
    ) as processor:
        export = connect(processor.port)
        tables = fleet.step(0)
        send(export, *tables[:3])
        backend.wait_for(lambda: backend.tables)
        send(export, tables[3])
        backend.wait_for(lambda: len(backend.spans) == 5)
    assert "ranks 3 did not close the step" in reports[0].coverage.notes[0]
    spans = backend.spans
    late = [row for row, said in spans.attributes.items() if said.get(semconv.LATE)]
    assert [(int(spans.rank[row]), SpanKind(spans.kind[row])) for row in late] == [
        (3, SpanKind.WORKER_STEP)
    ]
    assert balanced(processor) == {"acknowledged": 44, "forwarded": 4, "summarised": 40}


def test_a_rank_that_dies_in_mid_step_is_told_missing_on_the_root(
    fleet, backend, connect, judge_class
):
    quick = AssemblerConfig(decision_wait=0.2)
    with Processor(config(backend.port, assembler=quick), judge=judge_class) as processor:
        export = connect(processor.port)
        *whole, torn = fleet.step(0)
        over = torn.take(np.argsort(torn.end_ns)[: len(torn) // 2])  # its step had not ended
        send(export, *whole, over)
        backend.wait_for(lambda: backend.tables)
        send(export, *fleet.step(1))
        backend.wait_for(lambda: len(backend.tables) > 1)
    spans = backend.spans
    roots = {int(spans.step[row]): row for row in np.flatnonzero(spans.kind == SpanKind.STEP)}
    said = {step: spans.attributes[row] for step, row in roots.items()}
    assert said[0][semconv.COVERAGE] == (
        "judged incomplete (after decision_wait): ranks 3 did not close the step"
    )
    assert lists_of(said[0])[semconv.MISSING_RANKS] == [3]
    # Half a rank is no rank that was slow or fast: the summary has the ranks that closed the step.
    of_step = spans.take((spans.step == 0) & (spans.kind == SpanKind.WORKER_STEP))
    assert sorted(of_step.rank.tolist()) == [0, 1, 2]
    assert semconv.COVERAGE not in said[1]
    assert semconv.MISSING_RANKS not in lists_of(said[1])
    counts = balanced(processor)
    assert counts["acknowledged"] == 3 * 11 + 5 + 44
    assert counts["forwarded"] + counts["summarised"] == counts["acknowledged"]


def lists_of(said) -> dict[str, list[int]]:
    return {
        pair.key: [value.int_value for value in pair.value.array_value.values]
        for pair in Span.FromString(said.get(REST, b"")).attributes
    }


def test_foreign_spans_pass_unchanged(fleet, backend, connect, judge_class):
    foreign = fleet.rank(-1, 0)
    with Processor(config(backend.port), judge=judge_class) as processor:
        send(connect(processor.port), foreign)
        backend.wait_for(lambda: backend.tables)
    assert backend.spans.span_id.tolist() == foreign.span_id.tolist()
    assert balanced(processor) == {"acknowledged": 11, "forwarded": 11}


def test_at_stop_what_was_acknowledged_is_judged_and_sent(fleet, backend, connect, judge_class):
    slow_to_decide = AssemblerConfig(decision_wait=3600)
    with Processor(config(backend.port, assembler=slow_to_decide), judge=judge_class) as processor:
        send(connect(processor.port), *fleet.step(0)[:2])
    assert len(backend.spans) == 3
    assert balanced(processor) == {"acknowledged": 22, "forwarded": 2, "summarised": 20}


def test_a_step_that_the_judge_cannot_stomach_leaves_unjudged_and_the_next_is_judged(
    fleet, backend, connect, judge_class
):
    class Choosy(judge_class):
        def judge(self, table):
            if int(table.step.max()) == 0:
                raise ZeroDivisionError
            return super().judge(table)

    reports = []
    with Processor(
        config(backend.port), judge=Choosy, on_report=lambda report, _: reports.append(report)
    ) as processor:
        send(connect(processor.port), *fleet.step(0), *fleet.step(1))
    assert reports[0].abstained.reason == "internal error"
    assert reports[1].abstained is None
    assert balanced(processor)["forwarded"] == 8


def test_a_lasting_incident_leaves_a_few_whole_steps_and_then_summaries(
    fleet, backend, connect, judge_class
):
    traces = TracesConfig(whole_steps_per_incident=2)
    with Processor(config(backend.port, traces=traces), judge=judge_class) as processor:
        export = connect(processor.port)
        for step in range(5):
            send(export, *fleet.step(step, rank0=5_000_000))
    spans = backend.spans
    sizes = [int((spans.step == step).sum()) for step in range(5)]
    # Cited spans stay in a summary too, with their ancestors: a launch and a kernel.
    assert sizes == [45, 45, 7, 7, 7]
    # The report itself is said with the whole steps; later ones refer to it by its id.
    events = [
        (int(spans.step[row]), semconv.REPORT in event.attributes)
        for row, said in spans.attributes.items()
        for event in events_of(said)
        if event.name == semconv.EVENT_INCIDENT
    ]
    assert sorted(events) == [(step, step < 2) for step in range(5) for _ in range(2)]
    balanced(processor)


def test_health_tells_the_books(fleet, connect, judge_class):
    import urllib.error
    import urllib.request

    from kat_otel.config import HealthConfig

    health = HealthConfig(endpoint="127.0.0.1:0")
    with Processor(config(None, health=health), judge=judge_class) as processor:
        send(connect(processor.port), *fleet.step(0))
        url = f"http://127.0.0.1:{processor.port_of('health')}"
        with urllib.request.urlopen(f"{url}/healthz", timeout=20) as response:
            said = json.load(response)
        assert said["healthy"] is True
        assert said["spans"]["acknowledged"] == 44
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/other", timeout=20)
        caught.value.close()
        assert caught.value.code == 404


def test_logs_and_metrics_of_others_pass_on_as_they_came(backend, judge_class):
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.string_value = "NVRM: Xid (PCI:0000:3b:00): 63"
    method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    with Processor(config(backend.port), judge=judge_class) as processor:
        with grpc.insecure_channel(f"127.0.0.1:{processor.port}") as channel:
            export = channel.unary_unary(method)
            export(request.SerializeToString(), timeout=20)
            with pytest.raises(grpc.RpcError) as caught:
                export(b"\xff", timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        backend.wait_for(lambda: backend.logs)
    assert backend.logs == [request]
    assert processor.books.marked("logs requests") == 1


def test_an_unknown_service_is_unimplemented(judge_class):
    with (
        Processor(config(None), judge=judge_class) as processor,
        grpc.insecure_channel(f"127.0.0.1:{processor.port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/some.Other/Call")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_taken_port_is_a_clear_error(judge_class):
    from kat_otel.errors import ConfigError

    with Processor(config(None), judge=judge_class) as processor:
        taken = ReceiverConfig(endpoint=f"127.0.0.1:{processor.port}")
        with pytest.raises(ConfigError, match="another process on that port"):
            Processor(config(None, receiver=taken), judge=judge_class).start()


def test_dlrm_replayed_names_the_late_ranks_and_exports_the_marked_step(dlrm, backend, judge_class):
    from kat_otel.processor.replay import send_spans, stamp

    reports = []
    with Processor(
        config(backend.port), on_report=lambda report, table: reports.append((report, table))
    ) as processor:
        send_spans(stamp(dlrm, "dlrm", 1, None), f"127.0.0.1:{processor.port}")
    ((report, table),) = reports
    culprits = [incident.culprit.ranks for incident in report.incidents]
    assert [7] in culprits
    assert not {rank for ranks in culprits for rank in ranks} & {1, 3}
    assert len(table) == len(dlrm)
    spans = backend.spans
    assert len(spans) <= 2_000
    assert set(spans.rank.tolist()) == {-1, *range(8)}
    assert (spans.parent < 0).sum() == 1  # one tree under one root
    marked = {
        int(spans.rank[row])
        for row, said in spans.attributes.items()
        if said.get(semconv.ROLE) == "culprit" and events_of(said)
    }
    assert 7 in marked
    assert balanced(processor)["acknowledged"] == len(dlrm)


def test_a_failing_callback_is_not_passed_over(fleet, connect, judge_class):
    from kat_otel.processor.server import ProcessorFailedError

    def broken(report, table):
        raise LookupError("the embedder's own fault")

    processor = Processor(config(None), judge=judge_class, on_report=broken)
    processor.start()
    send(connect(processor.port), *fleet.step(0))
    with pytest.raises(ProcessorFailedError, match="the embedder's own fault"):
        processor.wait(20)
    # Nothing more is acknowledged that nobody would judge.
    with pytest.raises(grpc.RpcError) as caught:
        send(connect(processor.port), fleet.rank(0, 1))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    processor.stop()


def test_an_exporting_thread_that_dies_ends_the_processor(fleet, backend, connect, judge_class):
    health = HealthConfig(endpoint="127.0.0.1:0")
    processor = Processor(config(backend.port, health=health), judge=judge_class)
    exporter = processor._exporter

    def fails():
        with exporter._changed:
            exporter._changed.wait_for(lambda: exporter._queue)
        raise TypeError("no request of any kind")

    exporter._next = fails
    processor.start()
    send(connect(processor.port), *fleet.step(0))
    with pytest.raises(ProcessorFailedError, match=r"exporting failed: .*of any kind"):
        processor.wait(20)
    with pytest.raises(urllib.error.HTTPError, match="503") as unhealthy:
        urllib.request.urlopen(f"http://127.0.0.1:{processor.port_of('health')}/healthz")
    unhealthy.value.close()
    with pytest.raises(grpc.RpcError) as caught:
        send(connect(processor.port), fleet.rank(0, 1))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    processor.stop()
    assert processor.books.balance().pending == 0


def test_tls_on_both_sides(fleet, backend, connect, judge_class, tmp_path):
    pki = Pki(tmp_path)
    receiver = ReceiverConfig(endpoint="127.0.0.1:0", tls=pki.tls())
    with Processor(config(backend.port, receiver=receiver), judge=judge_class) as last:
        exporter = ExporterConfig(
            endpoint=f"localhost:{last.port}",
            tls={"insecure": False, "ca_file": str(pki.ca[0])},
        )
        with Processor(config(None, exporter=exporter), judge=judge_class) as first:
            send(connect(first.port), fleet.rank(-1, 0))
        backend.wait_for(lambda: backend.tables)
    assert len(backend.spans) == 11


def test_what_operators_ask_for_is_measured_on_the_way(fleet, backend, connect, judge_class):
    from kat_otel.config import TelemetryConfig

    with Processor(
        config(backend.port, telemetry=TelemetryConfig(traces=True)), judge=judge_class
    ) as processor:
        send(connect(processor.port), *fleet.step(0), *fleet.step(1, rank2=5_000_000))
        backend.wait_for(lambda: len(backend.spans) >= 50)
    telemetry = processor.telemetry
    durations = {name: sum(d.counts) for name, d in telemetry.latencies.read().items()}
    assert {"request", "decode", "append", "step", "assemble", "judge", "send"} < set(durations)
    assert (durations["request"], durations["step"], durations["verdict"]) == (8, 2, 2)
    assert telemetry.books.marked("decoded spans") == 88
    levels = telemetry.gauges.read()
    assert (levels["assembling_steps"], levels["export_queue_bytes"]) == (0, 0)
    assert levels["export_last_success_age"] < 60
    # The processor's own work has left as spans of nobody's rank, and stands in no book.
    own = {backend.spans.name_of(row) for row in range(len(backend.spans))}
    assert {"request", "decode", "append", "step", "judge", "send", "export"} <= own
    balanced(processor)


def test_new_settings_hold_from_the_next_step_on_and_the_rest_is_named(
    fleet, backend, connect, judge_class, caplog
):
    reports = []
    old = config(backend.port)
    with Processor(
        old, judge=judge_class, on_report=lambda report, _: reports.append(report)
    ) as processor:
        export = connect(processor.port)
        send(export, *fleet.step(0))
        backend.wait_for(lambda: len(backend.spans) == 5)
        new = config(
            backend.port,
            traces=TracesConfig(healthy="all"),
            receiver=ReceiverConfig(endpoint="127.0.0.1:1"),
        )
        with caplog.at_level("INFO", "kat_otel"):
            assert processor.reload(new) == ["receiver.endpoint"]
        send(export, *fleet.step(1))
        backend.wait_for(lambda: len(backend.spans) == 50)
    said = "\n".join(caplog.messages)
    assert "settings taken: traces.healthy" in said
    assert "wait for a restart, the old ones stay: receiver.endpoint" in said
    balanced(processor)


def test_new_tokens_are_asked_for_at_once(fleet, connect, judge_class):
    from kat_otel.config import AuthConfig

    with Processor(config(None), judge=judge_class) as processor:
        export = connect(processor.port)
        send(export, fleet.rank(0, 0))
        locked = ReceiverConfig(endpoint="127.0.0.1:0", auth=AuthConfig(token="new"))
        assert processor.reload(config(None, receiver=locked)) == []
        with pytest.raises(grpc.RpcError) as caught:
            send(export, fleet.rank(1, 0))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_settings_that_cannot_be_taken_leave_the_old_ones_whole(backend, judge_class, tmp_path):
    from kat_otel.config import AuthConfig
    from kat_otel.errors import ConfigError

    bad = ReceiverConfig(endpoint="127.0.0.1:0", auth=AuthConfig(token_file=str(tmp_path / "none")))
    with Processor(config(backend.port), judge=judge_class) as processor:
        with pytest.raises(ConfigError, match=r"receiver\.auth\.token_file"):
            processor.reload(config(backend.port, receiver=bad, traces=TracesConfig(healthy="all")))
        assert processor.reload(config(backend.port)) == []


def test_detectors_take_new_thresholds_and_keep_what_they_learnt(fleet, connect):
    from kat_otel.config import DetectorConfig
    from kat_otel.processor.server import _judges
    from kat_otel.spans import concat
    from kat_otel.telemetry import Books

    judges, retune = _judges(config(None), None, Books())
    judge = judges.of("llama")
    for step in range(3):
        judge.judge(concat(fleet.step(step)))
    learnt = len(judge.history.shapes())
    tuned = DetectorConfig(min_impact_fraction=0.5, page_occurrences=9)
    retune(config(None).model_copy(update={"detector": tuned}))
    assert judges.of("llama") is judge
    assert len(judge.history.shapes()) == learnt
    assert judge._settings.min_impact_fraction == 0.5
    assert judge.tracker._settings.page_occurrences == 9
    assert judges.of("another")._settings.min_impact_fraction == 0.5
