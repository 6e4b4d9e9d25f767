"""The loop: one request an interval, whatever hangs or fails, and what it tells is understood."""

import logging
import re
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from kat_otel.config import HardwareConfig
from kat_otel.hardware import SIGNALS, HardwareStore
from kat_otel.hardware.metric_names import METRICS
from kat_otel.instrumentation.hardware.loop import HardwareLoop
from kat_otel.instrumentation.hardware.metrics import Measure
from tests.instrumentation.hardware.test_host import PID, Tree
from tests.instrumentation.standin_gpus import FIELDS, uuid

WAIT_S = 30.0


class Taken:
    """An exporter that keeps what it gets."""

    def __init__(self):
        self.requests: list[bytes] = []
        self.changed = threading.Condition()

    def __call__(self, data: bytes) -> None:
        with self.changed:
            self.requests.append(data)
            self.changed.notify_all()

    def more(self, count: int = 2) -> None:
        """Waits for this many further requests: the last began after the call."""
        with self.changed:
            wanted = len(self.requests) + count
            assert self.changed.wait_for(lambda: len(self.requests) >= wanted, WAIT_S)

    def names(self, request: int = -1) -> set[str]:
        read = ExportMetricsServiceRequest.FromString(self.requests[request])
        return {
            metric.name
            for group in read.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        }


def documented() -> dict[str, set[str]]:
    """Metric -> signals, as the page's table of what workers send has them."""
    page = (Path(__file__).parents[3] / "docs" / "hardware-signals.md").read_text()
    section = page.partition("## What workers say by themselves")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \|.*\|([^|]*)\|$", section, re.MULTILINE)
    return {name: set(re.findall(r"`([a-z_*]+)`", signals)) for name, signals in rows}


def test_the_page_says_which_signals_the_metrics_are():
    for name, signals in documented().items():
        read = {entry.signal for entry in METRICS[name]}
        if signals == {"throttle_*"}:
            assert all(signal.startswith("throttle_") for signal in read)
        elif name == "hw.errors":
            assert signals <= read, "of the host's memory and network others tell"
        else:
            assert signals == read, name


@pytest.fixture
def tree(tmp_path):
    """A machine on which every file that we read is there."""
    tree = Tree(tmp_path / "machine")
    tree.thread(PID, 1, 1)
    tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2900000")
    tree.write("sys/fs/cgroup/cpu.stat", "throttled_usec 5")
    tree.write("sys/fs/cgroup/cpu.pressure", "some total=5\n")
    tree.write("sys/fs/cgroup/memory.pressure", "some total=5\nfull total=5\n")
    for place in ("sys/fs/cgroup/io.pressure", "proc/pressure/io"):
        tree.write(place, "some total=5\nfull total=5\n")
    return tree


@pytest.fixture
def start(gpus, tree, request):
    """Returns a function that starts a loop; it is stopped in the end."""
    gpus.say(FIELDS)
    loops = []

    def begin(
        export, *, interval: float = 0.02, rank: int = 3, also=None, **resource
    ) -> HardwareLoop:
        said = {
            "kat.instance.id": f"{request.node.name}",
            "kat.rank": rank,
            "host.name": "node-0",
            "hw.id": uuid(0),
            **resource,
        }
        loops.append(HardwareLoop(said, PID, export, interval=interval, also=also, root=tree.root))
        loops[-1].start()
        return loops[-1]

    yield begin
    gpus.say({key: 0 for key in gpus.said if key.startswith("hang.")})
    for loop in loops:
        loop.stop()


def test_every_metric_that_a_worker_sends_is_understood_as_the_signal_that_it_is(
    start, gpus, tree, request
):
    taken = Taken()
    gpus.say({"reasons": 0x40 | 0x04})
    start(taken)
    taken.more()
    gpus.say({"xids": 1, "xid1": 79})
    tree.thread(PID, 2_000, 2_000)
    taken.more(3)
    names = set().union(*(taken.names(i) for i in range(len(taken.requests))))
    assert names - set(METRICS) == {"kat.worker.hardware.events"}, "which is of ourselves"
    assert names & set(METRICS) == set(documented()), "docs/hardware-signals.md lists what is sent"
    store = HardwareStore(HardwareConfig())
    for data in taken.requests:
        store.add("metrics", data)
    assert set(store.counts) == {"kept"}, "nothing is skipped, nothing lacks a device or a host"
    now = time.time_ns()
    found = store.lookup(
        instance=request.node.name,
        hosts=["node-0"],
        hardware_ids=[uuid(0)],
        ranks=[3],
        begin_ns=now - 10**9,
        end_ns=now,
    )
    values = {(r.signal, r.detail): r for r in found}
    levels = {
        ("sm_clock", ""): 1980,
        ("memory_clock", ""): 2619,
        ("throttle_thermal", ""): 1,
        ("throttle_power_cap", ""): 1,
        ("throttle_power_brake", ""): 0,
        ("power", ""): 620,
        ("power_limit", ""): 700,
        ("temperature", ""): 64,
        ("memory_temperature", ""): 71,
        ("gpu_utilization", ""): 0.97,
        ("pcie_width", ""): 16,
        ("pcie_generation", ""): 5,
        ("row_remap_failure", ""): 1,
        ("xid", "79"): 1,
        ("cpu_clock", "process"): 2900,
        ("swapped", "process"): 2,
        ("cpu_run_queue", ""): 7,
    }
    times = {detail for signal, detail in values if signal == "throttle_thermal"}
    assert times == {"", "sw_thermal", "hw_thermal"}, "the flag, and how long each was on"
    assert {key: values[key].value for key in levels} == pytest.approx(levels)
    counted = {r.signal for r in found if r.value == 0 and SIGNALS[r.signal].form != "level"}
    assert counted >= {
        *("pcie_replays", "pcie_errors", "nvlink_crc", "nvlink_replays", "nvlink_recoveries"),
        *("nvlink_bytes", "ecc_corrected", "ecc_uncorrected", "row_remaps", "page_faults", "swap"),
        *("cgroup_throttled", "cpu_pressure", "memory_pressure", "io_pressure", "cpu_steal"),
    }
    of_host = {r.signal for r in found if r.rank == -1}
    assert of_host == {
        *("cpu_steal", "cpu_run_queue", "swap", "cpu_pressure", "memory_pressure", "io_pressure")
    }


def test_what_the_sender_says_of_itself_goes_with_it(start):
    taken = Taken()
    health = [Measure("kat.sender.dropped", 3, {"reason": "queue"}, "sum")]
    start(taken, also=lambda: health)
    taken.more()
    assert {"kat.sender.dropped", "hw.power"} <= taken.names()


def test_a_driver_that_hangs_stops_nothing_but_itself(start, gpus):
    taken = Taken()
    loop = start(taken)
    taken.more()
    assert "hw.power" in taken.names()
    gpus.say({"hang.nvmlDeviceGetPowerUsage": 1})
    taken.more(3)
    assert "hw.power" not in taken.names()
    assert "kat.host.cpu.run_queue" in taken.names()
    assert loop.counts["gpu stalled"] >= 2
    assert ("gpu stalled", loop.counts["gpu stalled"]) in [
        (m.attributes["kat.event"], m.value) for m in loop.measures()
    ]
    gpus.silence("hang.nvmlDeviceGetPowerUsage")
    deadline = time.monotonic() + WAIT_S
    while "hw.power" not in taken.names() and time.monotonic() < deadline:
        taken.more(1)
    assert "hw.power" in taken.names(), "when the driver answers again, so do we"


def test_it_stops_within_a_second_though_the_driver_hangs(start, gpus):
    taken = Taken()
    loop = start(taken, interval=60.0)
    taken.more(1)
    gpus.say({"hang.nvmlDeviceGetPowerUsage": 1})
    stopped = threading.Thread(target=loop.stop)
    stopped.start()
    stopped.join(WAIT_S)
    assert not stopped.is_alive()
    loop._thread.join(WAIT_S)
    assert not loop._thread.is_alive(), "what hangs is left behind, and nothing else"


def test_it_stops_though_the_exporter_hangs_and_asks_nothing_meanwhile(start, gpus):
    entered, leave = threading.Event(), threading.Event()

    def export(data: bytes) -> None:
        entered.set()
        leave.wait(WAIT_S)

    loop = start(export)
    assert entered.wait(WAIT_S)
    gpus.calls()
    loop.stop()
    assert gpus.calls().count("nvmlDeviceGetPowerUsage") == 0, "a request never overlaps another"
    leave.set()


def test_an_exporter_that_raises_is_told_of_once_and_asked_again(start, caplog):
    done = threading.Event()
    attempts = []

    def export(data: bytes) -> None:
        attempts.append(data)
        if len(attempts) == 3:
            done.set()
        raise OSError("no room")

    with caplog.at_level(logging.ERROR):
        loop = start(export)
        assert done.wait(WAIT_S)
        loop.stop()
    assert loop.counts["export failures"] >= 3
    assert len([r for r in caplog.records if "handed over" in r.message]) == 1


def test_one_worker_of_an_instance_tells_of_the_host(start):
    first, second = Taken(), Taken()
    loop = start(first)
    first.more()
    start(second, rank=4, **{"hw.id": uuid(1)})
    second.more(3)
    assert "kat.host.cpu.run_queue" in first.names()
    assert "kat.host.cpu.run_queue" not in second.names()
    assert "kat.process.cgroup.throttled.time" in second.names()
    loop.stop()
    second.more(3)
    assert "kat.host.cpu.run_queue" in second.names()


def test_what_concerns_the_host_is_said_of_no_rank_and_no_device(start):
    taken = Taken()
    start(taken, **{"service.name": "vllm", "kat.tp.rank": 3})
    taken.more()
    read = ExportMetricsServiceRequest.FromString(taken.requests[-1])
    worker, host = ({a.key for a in group.resource.attributes} for group in read.resource_metrics)
    assert worker - host == {"kat.rank", "kat.tp.rank", "hw.id"}
    assert host == {"kat.instance.id", "host.name", "service.name"}
