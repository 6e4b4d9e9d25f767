"""The store: what it reads, how it joins, and that nothing makes it grow or fall."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from kat_otel.config import HardwareConfig
from kat_otel.hardware import HardwareStore
from kat_otel.hardware.metric_names import METRICS
from kat_otel.hardware.readings import SIGNALS, clean_text
from tests.hardware.otlp import DELTA, log_request, metric_request

SECOND = 1_000_000_000
T = 1_760_000_000 * SECOND
UUID = "GPU-0902c3a5-b542-f815-6c70-692ab3c49e22"
GPU = {"UUID": UUID, "pci_bus_id": "00000000:3B:00.0", "Hostname": "node-0"}


def store(**config) -> HardwareStore:
    return HardwareStore(HardwareConfig(**config))


def look(found: HardwareStore, begin: int = T, end: int = T + SECOND, **who):
    return found.lookup(
        instance=who.get("instance", "llama"),
        hosts=[who.get("host", "node-0")],
        hardware_ids=[who.get("device", UUID)],
        ranks=[who.get("rank", 3)],
        begin_ns=begin,
        end_ns=end,
    )


def growth(points, **said):
    found = store()
    name = "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"
    found.add("metrics", metric_request(name, points, kind="sum", labels=GPU, **said))
    return {r.phase: r.value for r in look(found, T, T + 60 * SECOND)}


def test_a_gauge_is_the_median_since_the_onset_and_what_was_before_is_told_apart():
    found = store()
    samples = [(T - 90 * SECOND, 1980.0), (T - 60 * SECOND, 1975.0), (T - 5 * SECOND, 1960.0)]
    samples += [(T + 5 * SECOND, 1110.0), (T + 10 * SECOND, 1115.0), (T + 500 * SECOND, 7.0)]
    kept = found.add("metrics", metric_request("DCGM_FI_DEV_SM_CLOCK", samples, labels=GPU))
    assert kept == 6
    before, during = look(found)
    assert (before.phase, before.value, before.samples) == ("before", 1977.5, 2)
    assert (during.phase, during.value, during.samples) == ("during", 1112.5, 2)
    assert (during.rank, during.device, during.host) == (3, UUID, "node-0")
    assert during.signal == "sm_clock"


def test_a_counter_is_its_growth():
    points = [(T - 100 * SECOND, 5.0), (T - 50 * SECOND, 6.0), (T, 6.0), (T + 30 * SECOND, 46.0)]
    assert growth(points) == {"before": 1.0, "during": 40.0}


def test_what_a_worker_says_of_its_process_is_not_of_another_who_shares_its_gpu():
    found = store()
    paging = {"system.paging.fault.type": "major"}
    for instance, rank, faults in (("llama", 3, 10), ("llama", 4, 200), ("other", 3, 3_000)):
        who = {"hw.id": UUID, "host.name": "node-0", "kat.instance.id": instance}
        # the rank is an integer on the wire, as workers write it
        data = metric_request(
            "process.paging.faults",
            [(T, 0), (T + SECOND, faults)],
            kind="sum",
            resource=who | {"kat.rank": rank},
            labels=paging,
        )
        assert found.add("metrics", data) == 2
    assert [r.value for r in look(found)] == [10]
    assert [r.value for r in look(found, rank=4)] == [200]
    found.add("metrics", metric_request("hw.gpu.pcie.width", [(T, 4.0)], resource=who))
    assert ("pcie_width", 4) in [(r.signal, r.value) for r in look(found)], "the GPU is of both"


def test_a_fall_of_a_counter_is_a_restart():
    assert growth([(T, 100.0), (T + 10 * SECOND, 3.0), (T + 20 * SECOND, 5.0)])["during"] == 5.0


def test_points_out_of_order_and_sent_twice_find_their_place():
    points = [(T + 20 * SECOND, 7.0), (T, 1.0), (T + 10 * SECOND, 4.0)]
    assert growth(points)["during"] == 6.0
    found = store()
    request = metric_request(
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", sorted(points), kind="sum", labels=GPU
    )
    found.add("metrics", request)
    once = look(found)
    found.add("metrics", request)
    assert look(found) == once


def test_deltas_add_up():
    points = [(T, 2.0), (T + 10 * SECOND, 3.0), (T + 20 * SECOND, 0.0)]
    assert growth(points, temporality=DELTA)["during"] == 3.0


def test_seconds_of_throttling_become_a_share_of_the_time():
    found = store()
    name = "nvidia_smi_clocks_event_reasons_counters_hw_thermal_slowdown_seconds"
    points = [(T, 10.0), (T + 10 * SECOND, 18.0)]
    bare = {"uuid": UUID.removeprefix("GPU-")}
    found.add("metrics", metric_request(name, points, labels=bare))
    (reading,) = look(found)
    assert (reading.signal, reading.value) == ("throttle_thermal", pytest.approx(0.8))


def test_bits_become_signals_and_idle_is_none():
    found = store()
    points = [(T, float(0x01 | 0x20)), (T + SECOND, float(0x40 | 0x04))]
    found.add("metrics", metric_request("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", points, labels=GPU))
    said = {r.signal: r.value for r in look(found)}
    assert said["throttle_thermal"] == 1.0
    assert said["throttle_power_cap"] == 0.5
    assert said["throttle_power_brake"] == said["throttle_hw_slowdown"] == 0.0


def test_the_last_xid_that_never_goes_away_is_one_event_when_it_comes():
    found = store()
    points = [(T - 60 * SECOND, 13.0), (T, 13.0), (T + SECOND, 94.0), (T + 2 * SECOND, 94.0)]
    found.add("metrics", metric_request("DCGM_FI_DEV_XID_ERRORS", points, labels=GPU))
    assert [(r.signal, r.detail) for r in look(found)] == [("xid", "94")]


def test_the_kernel_knows_a_gpu_by_its_address_and_metrics_tell_which_that_is():
    found = store()
    line = "NVRM: Xid (PCI:0000:3b:00): 48, pid=1"
    found.add("logs", log_request(line, T + SECOND, host="node-0.example.com"))
    assert look(found) == [], "nobody has said which GPU that is"
    found.add("metrics", metric_request("DCGM_FI_DEV_GPU_TEMP", [(T, 60.0)], labels=GPU))
    xid = [r for r in look(found) if r.signal == "xid"]
    assert [(r.rank, r.device, r.detail) for r in xid] == [(3, UUID, "48")]
    assert not [r for r in look(found, host="node-1") if r.signal == "xid"]


def test_what_another_instance_says_of_its_processes_is_not_ours():
    found = store()
    line = "KV cache pool is full. Retract requests. #retracted_reqs: 1"
    found.add("logs", log_request(line, T, **{"kat.instance.id": "other", "kat.rank": 3}))
    assert look(found) == []
    assert [r.signal for r in look(found, instance="other")] == ["engine_preemption"]


def test_times_of_cpus_add_up_and_virtual_interfaces_are_left_out():
    request = ExportMetricsServiceRequest()
    first = metric_request
    for cpu in range(4):
        said = {"cpu": f"cpu{cpu}", "state": "steal"}
        part = first(
            "system.cpu.time",
            [(T, 1.0 * cpu), (T + 10 * SECOND, cpu + 2.0)],
            kind="sum",
            resource={"host.name": "node-0"},
            labels=said,
        )
        one = ExportMetricsServiceRequest.FromString(part)
        if not request.resource_metrics:
            request.MergeFrom(one)
        else:
            points = one.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
            request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points.extend(points)
    found = store()
    found.add("metrics", request.SerializeToString())
    (reading,) = look(found)
    assert (reading.signal, reading.value, reading.rank) == ("cpu_steal", pytest.approx(0.8), -1)
    labels = {"device": "veth12ab"}
    data = first("system.network.errors", [(T, 1.0)], resource={"host.name": "h"}, labels=labels)
    assert found.add("metrics", data) == 0


@pytest.mark.parametrize("kind", ["histogram", "exponential_histogram", "summary"])
def test_types_that_say_no_single_value_are_skipped_and_counted(kind):
    found = store()
    data = metric_request("DCGM_FI_DEV_SM_CLOCK", [(T, 1.0)], kind=kind, labels=GPU)
    assert found.add("metrics", data) == 0
    assert found.counts["unsupported type"] == 1


def test_values_and_times_that_cannot_be_are_skipped_and_counted():
    found = store()
    odd = [(T, float("nan")), (T, float("inf")), (0, 1.0), (2**63, 1.0)]
    assert found.add("metrics", metric_request("DCGM_FI_DEV_SM_CLOCK", odd, labels=GPU)) == 0
    assert found.counts["no value or time"] == 4
    assert found.add("metrics", metric_request("DCGM_FI_DEV_SM_CLOCK", [(T, 1.0)])) == 0
    assert found.counts["no device"] == 1
    assert found.add("metrics", b"\xff\xff") == 0
    assert found.counts["malformed"] == 1


def test_memory_is_bounded_in_series_and_points():
    found = HardwareStore(HardwareConfig(max_series=500), most_points=20_000)
    tracemalloc.start()
    for second in range(12):
        for device in range(0, 1_000, 10):
            labels = {"UUID": f"gpu-{device + second % 10}", "Hostname": "n"}
            points = [(T + (second * 20 + i) * SECOND, float(i)) for i in range(20)]
            found.add("metrics", metric_request("DCGM_FI_DEV_SM_CLOCK", points, labels=labels))
        assert len(found) <= 500
        assert found.points <= 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.counts["series forgotten"] > 0
    assert peak < 8 * 2**20
    assert sum(len(there) for there in found._places.values()) == len(found)


def test_what_is_older_than_it_is_kept_goes():
    found = store(keep=60.0)
    points = [(T + i * SECOND, 1.0) for i in range(2_000)]
    found.add("metrics", metric_request("DCGM_FI_DEV_SM_CLOCK", points, labels=GPU))
    assert found.points < 200


def test_every_known_metric_names_a_signal_with_a_form_that_fits():
    for name, entries in METRICS.items():
        for entry in entries:
            form = SIGNALS[entry.signal].form
            fits = {"level": {"level", "share"}, "flag": {"level", "share"}}.get(entry.kind)
            assert fits is None or form in fits, name


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_requests_are_survived(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    name = data.draw(st.sampled_from(sorted(METRICS)))
    points = [(T + i * SECOND, float(i)) for i in range(3)]
    kind = data.draw(st.sampled_from(["gauge", "sum"]))
    request = bytearray(metric_request(name, points, kind=kind, labels=GPU))
    for _ in range(data.draw(st.integers(0, 6))):
        request[int(rng.integers(len(request)))] = int(rng.integers(256))
    found = store()
    for signal in ("metrics", "logs"):
        found.add(signal, bytes(request))
    for reading in look(found):
        assert np.isfinite(reading.value)


@given(st.text(max_size=2_000))
def test_untrusted_text_becomes_one_short_printable_line(text):
    cleaned = clean_text(text)
    assert len(cleaned) <= 240
    assert cleaned.isprintable()
