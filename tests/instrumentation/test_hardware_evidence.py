"""From a GPU that lowers its clock to the component of an incident: real processes all the way.

stand-in NVML -> a loop in each of four worker processes -> OTLP/HTTP -> kat process -> report
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from kat_otel.config import Config, ExporterConfig, HttpReceiverConfig, ReceiverConfig
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group, record
from kat_otel.otlp import encode_traces
from kat_otel.processor.server import Processor
from tests.instrumentation.standin_gpus import uuid
from tests.processor.receiving import by_http

RANKS = 4
CULPRIT = 2
INSTANCE = "sick"
HOST = "node-0"

WORKER = """
import os, sys, urllib.request
from kat_otel.instrumentation.hardware.gpu_identity import hardware_identity
from kat_otel.instrumentation.hardware.loop import HardwareLoop

port, instance, host, rank = sys.argv[1:]

def export(data):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/metrics", data, {"content-type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()

gpu = hardware_identity(0, os.environ)
resource = {"kat.instance.id": instance, "host.name": host, "kat.rank": int(rank),
            "hw.id": gpu.hw_id, "hw.pci.bus_id": gpu.pci_bus_id}
loop = HardwareLoop(resource, os.getpid(), export, interval=0.1)
loop.start()
sys.stdin.read()  # until the test closes it
loop.stop()
print(loop.counts["requests"], loop.counts["export failures"])
"""


@pytest.fixture
def kat():
    """A kat process that keeps its reports."""
    reports = []
    config = Config(
        receiver=ReceiverConfig(
            endpoint="127.0.0.1:0", http=HttpReceiverConfig(endpoint="127.0.0.1:0")
        ),
        exporter=ExporterConfig(endpoint=None),
    )
    with Processor(config, on_report=lambda report, _: reports.append(report)) as processor:
        processor.reports = reports
        yield processor


def until(condition, what: str):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def started(port: int) -> list[subprocess.Popen[str]]:
    """Four workers on a host, each of which sees its own GPU as CUDA device 0."""
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port), INSTANCE, HOST, str(rank)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]


def ended(process: subprocess.Popen[str]) -> tuple[int, int]:
    said, _ = process.communicate("", timeout=30)
    assert process.returncode == 0
    sent, failed = map(int, said.split())
    return sent, failed


@pytest.mark.timeout(120)
def test_a_slow_rank_whose_gpu_says_that_it_is_hot_is_gpu_clock(kat, gpus):
    gpus.say({"gpus": RANKS})
    processes = started(kat.http_port)
    try:
        until(lambda: kat.books.marked("metrics requests") >= 3 * RANKS, "healthy readings")
        gpus.say(
            {
                f"{CULPRIT}.sm_clock": 1_110,
                f"{CULPRIT}.reasons": 0x40,
                f"{CULPRIT}.temperature": 87,
            }
        )
        onset = time.time_ns()
        before = kat.books.marked("metrics requests")
        until(lambda: kat.books.marked("metrics requests") >= before + 3 * RANKS, "sick readings")
        for data in steps(onset):
            assert by_http(kat.http_port, data).status == 200
        until(lambda: any(r.incidents for r in kat.reports), "an incident")
    finally:
        counted = [ended(process) for process in processes]
    assert all(sent >= 5 and failed == 0 for sent, failed in counted)
    incident = next(r for r in kat.reports if r.incidents).incidents[0]
    assert (incident.kind, incident.culprit.ranks) == ("slow_rank", [CULPRIT])
    assert incident.component == "gpu_clock"
    assert incident.component_confidence > 0.9
    facts = {fact.signal: fact for fact in incident.evidence if fact.id.startswith("H")}
    assert facts["throttle_thermal"].value == pytest.approx(1.0, abs=0.3)
    assert facts["sm_clock"].value == 1_110
    assert facts["sm_clock"].expected == 1_980
    assert uuid(CULPRIT) in facts["sm_clock"].text


def steps(begin_ns: int) -> list[bytes]:
    """One step of four ranks, the culprit's kernels 25 % slower, as the workers' GPUs are named."""
    members = tuple(
        replace(worker, hardware_id=uuid(worker.rank))
        for worker in workers(RANKS, instance=INSTANCE, host=HOST)
    )
    healthy = decode_program(replace(LLAMA_70B, layers=8), members)
    sick = slow_rank(healthy, CULPRIT, 25).program
    table = record(Group(healthy, seed=5), [3], program_at=lambda _: sick, zero_unix_ns=begin_ns)
    return list(encode_traces(table))
