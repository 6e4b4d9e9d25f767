"""Lines of logs as kernels, NCCL and engines write them, and as nobody should."""

import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.hardware.log_patterns import gpu_alias, read_line

LINES = [
    (
        "NVRM: Xid (PCI:0000:9b:00): 94, pid=1234, name=python3, Contained ECC error",
        ("xid", "94", "0000:9b:00"),
    ),
    (
        (
            "Okt 06 17:59:27 b kernel: NVRM: Xid (PCI:0000:01:00): 79, pid=1122, GPU has fallen "
            "off the bus."
        ),
        ("xid", "79", "0000:01:00"),
    ),
    (
        "NVRM: Xid (PCI:0019:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000)",
        ("xid", "149", "0019:01:00"),
    ),
    ("NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.", ("xid", "79", "0000:01:00")),
    (
        (
            "node1:983:1261 [3] NCCL WARN NET/IB : Got completion from peer 7.6.13.83<36315> with "
            "status=12 opcode=1 len=0 vendor err 129 (Send)"
        ),
        ("nccl_warning", "ib", ""),
    ),
    (
        "host:123:456 [0] transport/nvls.cc:254 NCCL WARN Cuda failure 1 'invalid argument'",
        ("nccl_warning", "nvlink", ""),
    ),
    ("[rank 0] NCCL WARN Timeout waiting for RX (waited 120 sec)", ("nccl_warning", "other", "")),
    (
        (
            "WARNING 08-20 10:18:39 scheduler.py:1141] Sequence group 147 is preempted by "
            "PreemptionMode.RECOMPUTE mode because there is not enough KV cache space."
        ),
        ("engine_preemption", "", ""),
    ),
    (
        "[2026-09-13 16:06:07] KV cache pool is full. Retract requests. #retracted_reqs: 1",
        ("engine_preemption", "", ""),
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried", ("engine_out_of_memory", "", "")),
    ("Out of memory: Killed process 4127 (python3)", ("out_of_memory_kill", "", "")),
    ("EDAC MC0: 1 CE memory read error on CPU_SrcID#0", ("memory_error", "corrected", "")),
    ("EDAC MC1: 1 UE memory read error on DIMM_B2", ("memory_error", "uncorrected", "")),
    (
        "pcieport 0000:00:01.0: AER: Corrected error received: 0000:c1:00.0",
        ("pcie_error", "corrected", "0000:c1:00"),
    ),
    (
        "pcieport 0000:00:02.0: AER: Uncorrected (Non-Fatal) error received: 0000:01:00.0",
        ("pcie_error", "uncorrected", "0000:01:00"),
    ),
    ("watchdog: BUG: soft lockup - CPU#0 stuck for 23s!", ("cpu_lockup", "", "")),
    (
        "mce: CPU0: Package temperature above threshold, cpu clock throttled (total events = 1)",
        ("cpu_thermal", "", ""),
    ),
]


@pytest.mark.parametrize(("line", "said"), LINES, ids=[line[:32] for line, _ in LINES])
def test_a_line_says_its_signal_its_code_and_its_device(line, said):
    sign = read_line(line)
    assert sign is not None
    assert (sign.signal, sign.detail, sign.pci) == said


@pytest.mark.parametrize(
    "line",
    [
        "",
        "INFO 07-28 06:40:59 Engine 000: Avg prompt throughput: 0.0 tokens/s, GPU KV usage: 91.2%",
        "node1:983:1261 [3] NCCL INFO Connected NVLS tree",
        "GET /v1/chat/completions 200 Xid",
        "EDAC MC: Ver: 3.0.0",
        "pcieport 0000:00:01.0: AER: enabled with IRQ 122",
    ],
)
def test_everyday_lines_say_nothing(line):
    assert read_line(line) is None


def test_the_driver_introduces_a_gpu_by_both_its_names():
    uuid = "GPU-0902c3a5-b542-f815-6c70-692ab3c49e22"
    assert gpu_alias(f"NVRM: GPU at PCI:0000:01:00: {uuid}") == ("0000:01:00", uuid)
    assert gpu_alias("NVRM: GPU at PCI:0000:01:00: GPU-short") is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400), st.sampled_from([line for line, _ in LINES]), st.integers(0, 60))
def test_any_text_around_and_inside_a_line_is_survived(noise, line, cut):
    for text in (noise, line[cut:] + noise, noise + line[:cut], line[:cut] + noise + line[cut:]):
        sign = read_line(text)
        assert sign is None or (len(sign.detail) <= 16 and len(sign.pci) <= 16)
        gpu_alias(text)


@pytest.mark.parametrize("line", [line for line, _ in LINES], ids=lambda line: line[:24])
def test_no_line_takes_long_whatever_is_repeated_in_it(line):
    """Every prefix of every form, repeated to 200 kB, 20 times: microseconds each."""
    pieces = [line, line[: len(line) // 2], "0000:", "AER: error", "Xid (PCI:", *string.punctuation]
    begun = time.process_time()
    for piece in pieces:
        text = line[: len(line) // 3] + piece * (200_000 // len(piece))
        for _ in range(20):
            read_line(text)
            gpu_alias(text)
    assert time.process_time() - begun < 2.0, "700 readings"
