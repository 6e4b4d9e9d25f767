"""Which GPU a CUDA device is: CUDA's own rules, told without CUDA."""

import logging

import pytest

from kat_otel.instrumentation.hardware.gpu_identity import UNKNOWN_GPU, hardware_identity
from tests.instrumentation.standin_gpus import python, uuid


def seen(visible: str | None = None, *, order: str = "") -> list[str]:
    """hw.id of the CUDA devices 0, 1 and 2 under these variables."""
    said = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    said |= {"CUDA_DEVICE_ORDER": order} if order else {}
    return [hardware_identity(device, said).hw_id for device in range(3)]


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, [uuid(0), uuid(1), ""]),
        ("1,0", [uuid(1), uuid(0), ""]),
        ("1", [uuid(1), "", ""]),
        ("", ["", "", ""]),
        ("0,2,1", [uuid(0), "", ""]),  # what follows an index that is none is not seen
        ("-1,0", ["", "", ""]),
        ("0,0", [uuid(0), "", ""]),
        (" 1 , 0 ", [uuid(1), uuid(0), ""]),
        (f"{uuid(1)},{uuid(0)}", [uuid(1), uuid(0), ""]),
        ("GPU-000000a1", [uuid(1), "", ""]),  # cut short
        ("GPU-000000a", ["", "", ""]),  # not for one alone
        ("NoDevFiles", ["", "", ""]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(gpus, visible, devices):
    assert seen(visible) == devices


def test_a_gpu_has_its_uuid_its_bus_address_and_its_name(gpus):
    assert hardware_identity(1, {}) == (uuid(1), "00000000:11:00.0", "NVIDIA Stand-in 1")
    assert hardware_identity(-1, {}) == UNKNOWN_GPU
    # every session that was begun has ended
    calls = gpus.calls()
    assert calls.count("nvmlInitWithFlags") == calls.count("nvmlShutdown") == 1


def test_indices_count_by_the_bus_and_not_as_nvml_enumerates(gpus):
    gpus.say({"0.bus": 0x90, "1.bus": 0x10})
    assert seen(order="PCI_BUS_ID") == [uuid(1), uuid(0), ""]
    assert seen() == [uuid(1), uuid(0), ""], "GPUs of one kind are as fast as each other"


def test_which_of_several_kinds_is_the_fastest_is_not_guessed(gpus, caplog):
    gpus.say({"1.kind": 2})
    with caplog.at_level(logging.WARNING):
        assert seen() == ["", "", ""]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in caplog.text
    assert seen(order="PCI_BUS_ID") == [uuid(0), uuid(1), ""]
    assert seen(uuid(1)) == [uuid(1), "", ""], "a UUID needs no order"


def test_a_process_sees_one_mig_device_alone(gpus):
    gpus.say({"slices": 2})
    assert seen() == [uuid(0, 1), "", ""]
    assert seen("1") == [uuid(1, 1), "", ""]
    assert seen(f"{uuid(1, 2)},{uuid(0, 1)}") == [uuid(1, 2), "", ""]
    assert seen("MIG-of-another-host") == ["", "", ""]
    assert hardware_identity(0, {"CUDA_VISIBLE_DEVICES": uuid(1, 2)}) == (
        uuid(1, 2),
        "00000000:11:00.0",
        "NVIDIA Stand-in 1",
    )


def test_of_whole_gpus_and_slices_mixed_none_is_guessed(gpus):
    gpus.say({"0.slices": 0, "1.slices": 2})
    assert seen() == ["", "", ""]
    assert seen("0") == [uuid(0), "", ""]


def test_without_nvml_a_whole_uuid_in_the_environment_is_the_answer(gpus):
    gpus.say({"error.nvmlInitWithFlags": 9})
    assert seen(f"{uuid(1)},{uuid(0)}") == [uuid(1), uuid(0), ""]
    assert seen("GPU-000000a1") == ["", "", ""]
    assert seen("1,0") == seen() == ["", "", ""]


def test_a_driver_that_fails_half_way_is_told_and_not_raised(gpus, caplog):
    gpus.say({"error.nvmlDeviceGetUUID": 999})
    with caplog.at_level(logging.WARNING):
        assert seen() == ["", "", ""]
    assert "metrics of the GPU will not join" in caplog.text
    assert gpus.calls().count("nvmlShutdown") == 3


def test_another_process_finds_the_library_by_its_path(gpus):
    program = (
        "import os; from kat_otel.instrumentation.hardware.gpu_identity import hardware_identity;"
        "print(hardware_identity(0, os.environ).hw_id)"
    )
    assert python(program, {"CUDA_VISIBLE_DEVICES": "1"}).strip() == uuid(1)
