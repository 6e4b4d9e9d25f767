"""What is read of a GPU: every signal, what is not supported, what is lost and comes back."""

import logging
import time

import pytest

from kat_otel.instrumentation.hardware import nvml
from kat_otel.instrumentation.hardware.nvml import GpuReader
from tests.instrumentation.standin_gpus import FIELDS, field, python, uuid


@pytest.fixture
def reader(gpus):
    gpus.say(FIELDS)
    made = GpuReader(uuid(0))
    yield made
    made.close()


@pytest.fixture
def at_once(monkeypatch):
    """A session that failed may begin again without a wait."""
    monkeypatch.setattr(nvml, "_FIRST_WAIT", 0.0)


def said(reader) -> dict[tuple, float]:
    return {(m.name, *m.attributes.values()): m.value for m in reader.read()}


def test_everything_that_the_gpu_says_is_read_in_the_units_of_opentelemetry(reader, gpus):
    gpus.say({"reasons": 0x40 | 0x08})
    assert said(reader) == pytest.approx(
        {
            ("hw.gpu.clock", "sm"): 1_980_000_000,
            ("hw.gpu.clock", "memory"): 2_619_000_000,
            ("hw.gpu.throttle.active", "clocks_setting"): 0,
            ("hw.gpu.throttle.active", "power_cap"): 0,
            ("hw.gpu.throttle.active", "hw_slowdown"): 1,
            ("hw.gpu.throttle.active", "sw_thermal"): 0,
            ("hw.gpu.throttle.active", "hw_thermal"): 1,
            ("hw.gpu.throttle.active", "hw_power_brake"): 0,
            ("hw.power", "gpu"): 620.0,
            ("hw.gpu.power.limit",): 700.0,
            ("hw.temperature", "temperature", "gpu"): 64,
            ("hw.temperature", "temperature", "memory"): 71,
            ("hw.gpu.pcie.width",): 16,
            ("hw.gpu.pcie.generation",): 5,
            ("hw.gpu.pcie.replays",): 3,
            ("hw.gpu.pcie.errors",): 4,
            ("hw.gpu.utilization", "general"): 0.97,
            ("hw.errors", "gpu", "corrected"): 2,
            ("hw.errors", "gpu", "uncorrected"): 1,
            ("hw.gpu.row_remaps", "corrected"): 5,
            ("hw.gpu.row_remaps", "uncorrected"): 6,
            ("hw.gpu.row_remap.pending",): 0,
            ("hw.gpu.row_remap.failed",): 1,
            ("hw.gpu.throttle.time", "power_cap"): 1.5,
            ("hw.gpu.throttle.time", "sw_thermal"): 2.0,
            ("hw.gpu.throttle.time", "hw_thermal"): 3.0,
            ("hw.gpu.throttle.time", "hw_power_brake"): 4.0,
            ("hw.gpu.nvlink.errors", "crc", 0): 7,
            ("hw.gpu.nvlink.errors", "crc", 1): 8,
            ("hw.gpu.nvlink.errors", "replay", 0): 9,
            ("hw.gpu.nvlink.errors", "replay", 1): 0,
            ("hw.gpu.nvlink.errors", "recovery", 0): 0,
            ("hw.gpu.nvlink.errors", "recovery", 1): 1,
            ("hw.gpu.nvlink.io", "transmit"): 1_024_000,
            ("hw.gpu.nvlink.io", "receive"): 2_048_000,
        }
    )
    measures = reader.read()
    counted = [m for m in measures if m.kind == "sum"]
    assert all(m.start_ns and isinstance(m.value, int) for m in counted if m.unit != "s")
    assert {m.start_ns for m in measures if m.kind == "gauge"} == {0}
    now = time.time_ns()
    assert all(0 <= now - m.time_ns < 60e9 for m in measures)


def test_what_is_not_supported_is_left_out_once_and_for_all(reader, gpus):
    gpus.silence("power", "links", field("MEMORY_TEMP"))
    found = said(reader)
    names = {key[0] for key in found}
    assert not names & {"hw.power", "hw.gpu.nvlink.errors", "hw.gpu.nvlink.io"}
    assert ("hw.temperature", "temperature", "memory") not in found
    assert reader.counts["left out"] == 2
    gpus.calls()
    gpus.say({"power": 1_000})
    assert ("hw.power", "gpu") not in said(reader)
    assert "nvmlDeviceGetPowerUsage" not in gpus.calls()
    assert reader.counts["errors"] == 0


def test_what_fails_now_and_then_is_asked_again_and_sums_keep_their_value(reader, gpus):
    said(reader)
    gpus.say({"error.nvmlDeviceGetPowerUsage": 999})
    gpus.silence(field("NVLINK_ERROR_DL_CRC", 1), field("MEMORY_TEMP"))
    found = said(reader)
    assert ("hw.power", "gpu") not in found
    assert found["hw.gpu.nvlink.errors", "crc", 1] == 8, "else the links' sum would fall"
    assert ("hw.temperature", "temperature", "memory") not in found, "a level that is old lies"
    assert reader.counts["errors"] == 1
    gpus.say({"error.nvmlDeviceGetFieldValues": 999})
    found = said(reader)
    assert (found["hw.gpu.nvlink.errors", "crc", 0], found["hw.gpu.pcie.replays",]) == (7, 3)
    gpus.silence("error.nvmlDeviceGetPowerUsage", "error.nvmlDeviceGetFieldValues")
    assert said(reader)["hw.power", "gpu"] == 620.0


def test_older_drivers_are_asked_as_they_can_be(reader, gpus):
    gpus.silence(field("CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN"))
    gpus.say(
        {
            "error.nvmlDeviceGetCurrentClocksEventReasons": 13,
            "reasons": 0x80,
            field("PERF_POLICY_THERMAL"): 9_000_000_000,
        }
    )
    said(reader)  # what stands in for another is asked from the next reading on
    found = said(reader)
    assert found["hw.gpu.throttle.active", "hw_power_brake"] == 1
    assert found["hw.gpu.throttle.time", "sw_thermal"] == 9.0


def test_nvlink_5_counts_recoveries_and_bytes_in_other_fields(reader, gpus):
    gpus.silence(*_NVLINK_4)
    for link in (0, 1):
        gpus.say(
            {
                field("NVLINK_COUNT_EFFECTIVE_ERRORS", link): 20 + link,
                field("NVLINK_COUNT_LINK_RECOVERY_EVENTS", link): 30 + link,
                field("NVLINK_COUNT_XMIT_BYTES", link): 40 + link,
                field("NVLINK_COUNT_RCV_BYTES", link): 50 + link,
            }
        )
    said(reader)
    found = {key: value for key, value in said(reader).items() if "nvlink" in key[0]}
    assert found == {
        ("hw.gpu.nvlink.errors", "crc", 0): 20,
        ("hw.gpu.nvlink.errors", "crc", 1): 21,
        ("hw.gpu.nvlink.errors", "recovery", 0): 30,
        ("hw.gpu.nvlink.errors", "recovery", 1): 31,
        ("hw.gpu.nvlink.io", "transmit", 0): 40,
        ("hw.gpu.nvlink.io", "transmit", 1): 41,
        ("hw.gpu.nvlink.io", "receive", 0): 50,
        ("hw.gpu.nvlink.io", "receive", 1): 51,
    }


_NVLINK_4 = {
    *(
        field(f"NVLINK_ERROR_DL_{n}", link)
        for n in ("CRC", "REPLAY", "RECOVERY")
        for link in (0, 1)
    ),
    *(field(f"NVLINK_THROUGHPUT_DATA_{way}", 0xFFFFFFFF) for way in ("TX", "RX")),
}


def xids(reader) -> list[tuple[int, int]]:
    found = [m for m in reader.read() if m.name == "hw.gpu.xid"]
    assert [m.time_ns for m in found] == sorted(m.time_ns for m in found)
    return [(m.attributes["hw.gpu.xid"], m.value) for m in found]


def test_an_xid_is_a_counter_that_was_zero_when_we_last_looked(reader, gpus):
    gpus.say({"xids": 1, "xid1": 13})  # of the time before us: NVML does not tell it
    assert xids(reader) == []
    gpus.say({"xids": 4, "xid2": 79, "xid3": 48, "xid4": 79})
    first = [m for m in reader.read() if m.name == "hw.gpu.xid"]
    assert [(m.attributes["hw.gpu.xid"], m.value) for m in first] == [
        (79, 0),
        (48, 0),
        (79, 2),
        (48, 1),
    ]
    assert first[0].time_ns < first[2].time_ns
    assert xids(reader) == [(79, 2), (48, 1)]
    gpus.say({"xids": 5, "xid5": 48})
    assert xids(reader) == [(79, 2), (48, 2)]


def test_a_storm_of_xids_takes_bounded_time(reader, gpus):
    reader.read()
    gpus.say({"xids": 1_000} | {f"xid{n}": n for n in range(1, 1_001)})
    for _ in range(20):
        found = xids(reader)
    assert len({code for code, _ in found}) == 64


def test_xids_of_another_slice_of_the_gpu_are_not_ours(gpus):
    gpus.say({"slices": 2})
    reader = GpuReader(uuid(0, 2))
    reader.read()
    gpus.say({"xids": 3, "xid1": 13, "slice1": 1, "xid2": 31, "slice2": 2, "xid3": 79})
    assert xids(reader)[-2:] == [(31, 1), (79, 1)]
    reader.close()


def test_of_a_mig_device_the_whole_gpu_is_asked(gpus):
    gpus.say({"slices": 2, "1.sm_clock": 1_000})
    reader = GpuReader(uuid(1, 2))
    assert said(reader)["hw.gpu.clock", "sm"] == 1_000_000_000
    reader.close()


def test_without_a_uuid_the_bus_address_finds_the_gpu(gpus):
    gpus.say({"1.sm_clock": 1_000})
    reader = GpuReader("", "00000000:11:00.0")
    assert said(reader)["hw.gpu.clock", "sm"] == 1_000_000_000
    reader.close()
    nobody = GpuReader("")
    gpus.calls()
    assert nobody.read() == []
    assert gpus.calls() == []


def test_a_gpu_that_is_lost_is_told_once_and_found_again(at_once, gpus, caplog):
    reader = GpuReader(uuid(0))
    with caplog.at_level(logging.INFO):
        assert said(reader)
        gpus.say({"lost": 1})
        assert [reader.read() for _ in range(5)] == [[]] * 5
        lost = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert len(lost) == 2, "that the session ended, and that the GPU is not found"
        gpus.silence("lost")
        assert said(reader)["hw.gpu.clock", "sm"] == 1_980_000_000
    assert "are read again" in caplog.text
    calls = gpus.calls()
    assert calls.count("nvmlInitWithFlags") == calls.count("nvmlShutdown") + 1
    assert reader.counts["sessions"] == 2
    reader.close()


def test_after_a_new_driver_what_it_supports_is_asked_anew(at_once, gpus):
    reader = GpuReader(uuid(0))
    gpus.silence("power")
    said(reader)
    gpus.say({"error.nvmlDeviceGetClockInfo": 18, "power": 1_000})  # versions do not match
    assert reader.read() == []
    gpus.silence("error.nvmlDeviceGetClockInfo")
    assert said(reader)["hw.power", "gpu"] == 1.0
    reader.close()


def test_attempts_become_rare(gpus, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(nvml.time, "monotonic", lambda: clock[0])
    gpus.say({"error.nvmlInitWithFlags": 9})
    reader = GpuReader(uuid(0))
    tried = []
    for _ in range(300):
        reader.read()
        tried += [clock[0] - 100] * gpus.calls().count("nvmlInitWithFlags")
        clock[0] += 1
    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


def test_without_a_driver_one_line_says_so_and_nothing_is_raised():
    program = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='%(levelname)s %(message)s')\n"
        "from kat_otel.instrumentation.hardware import nvml\n"
        "nvml._FIRST_WAIT = 0; reader = nvml.GpuReader('GPU-1')\n"
        "print([reader.read() for _ in range(3)])\n"
    )
    assert python(program, {"LD_LIBRARY_PATH": ""}) == (
        "WARNING there is no NVIDIA driver (libnvidia-ml.so.1 is not found): "
        "no metrics of the GPU for now, all else goes on\n"
        "[[], [], []]\n"
    )


def test_the_session_ends_when_the_reader_is_closed(reader, gpus):
    reader.read()
    reader.close()
    reader.close()
    calls = gpus.calls()
    assert calls.count("nvmlShutdown") == calls.count("nvmlEventSetFree") == 1
