"""``kat doctor --worker``: every finding is true, and what is wrong comes with its remedy."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kat_otel.config import (
    AuthConfig,
    Config,
    ControlConfig,
    ExporterConfig,
    HttpReceiverConfig,
    ReceiverConfig,
)
from kat_otel.errors import KatError
from kat_otel.instrumentation import doctor
from kat_otel.instrumentation.doctor import examine_worker
from kat_otel.processor.server import Processor
from tests.instrumentation.standin_gpus import uuid
from tests.processor.receiving import Pki

TOKEN = "s3cret"
TOPICS = [
    "capture library",
    "driver",
    "NVML",
    "CUPTI",
    "other profilers",
    "permissions",
    "endpoint for traces",
    "control channel",
]


def found(environment=None, root="/"):
    return {finding.topic: finding for finding in examine_worker(environment or {}, root)}


def endpoint(port: int = 1, protocol: str = "http/protobuf"):
    """The sender's reading of the environment, as far as the doctor needs it."""
    return SimpleNamespace(
        url=f"http://127.0.0.1:{port}/v1/traces",
        protocol=protocol,
        headers={"authorization": f"Bearer {TOKEN}"},
        ca_file="",
        cert_file="",
        key_file="",
    )


@pytest.fixture
def parts(monkeypatch, free_port):
    """The capture's and the sender's modules, as far as they are asked: all is well with them."""
    made = SimpleNamespace(
        problem="", candidates=[("libc.so.6", "wheel")], endpoint=endpoint(free_port)
    )

    def load():
        if made.problem:
            raise KatError(made.problem)

    def find(given, *, environment):
        assert "PATH" not in environment, "the worker's environment, not ours"
        named = [(given, "KAT_CUPTI_LIBRARY")] if given else made.candidates
        return [SimpleNamespace(path=path, where=where) for path, where in named]

    for name, module in {
        doctor._CAPTURE: SimpleNamespace(load=load),
        doctor._CUPTI: SimpleNamespace(find=find),
        doctor._ENDPOINTS: SimpleNamespace(Endpoint=SimpleNamespace(read=lambda *_: made.endpoint)),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def kat():
    """A kat process that wants a token."""
    auth = AuthConfig(token=TOKEN)
    config = Config(
        receiver=ReceiverConfig(
            endpoint="127.0.0.1:0", http=HttpReceiverConfig(endpoint="127.0.0.1:0", auth=auth)
        ),
        exporter=ExporterConfig(endpoint=None),
        control=ControlConfig(endpoint="127.0.0.1:0", auth=auth),
    )
    with Processor(config) as processor:
        yield processor


def test_everything_is_looked_at_in_the_order_in_which_it_is_needed(parts):
    everything = found()
    assert list(everything) == TOPICS
    assert all(finding.remedy for finding in everything.values() if finding.state != "ok")


def test_a_capture_library_that_is_not_there_or_does_not_load_is_told(parts, monkeypatch):
    assert found()["capture library"].state == "ok"
    parts.problem = "libkat_capture.so: undefined symbol: x"
    told = found()["capture library"]
    assert (told.state, told.detail) == ("fail", parts.problem)
    monkeypatch.setitem(sys.modules, doctor._CAPTURE, None)
    told = found()["capture library"]
    assert told.state == "fail"
    assert told.remedy.startswith("pip install")


def test_the_libcupti_that_would_be_loaded_is_named(parts):
    parts.candidates = [("/no/libcupti.so.13", "wheel"), ("libc.so.6", "toolkit")]
    told = found()["CUPTI"]
    assert told.state == "ok"
    assert told.detail.startswith("libc.so.6 (toolkit) would be loaded"), "the first that loads"
    told = found({"KAT_CUPTI_LIBRARY": "/given/libcupti.so"})["CUPTI"]
    assert told.state == "fail"
    assert "/given/libcupti.so (KAT_CUPTI_LIBRARY): " in told.detail
    parts.candidates = []
    assert found()["CUPTI"].state == "fail"


def test_nvml_says_which_gpu_cuda_will_see_first(parts, gpus):
    told = found({"CUDA_VISIBLE_DEVICES": "1"})["NVML"]
    assert told.state == "ok"
    assert told.detail == f"driver 999.1, 2 GPUs; CUDA device 0 is NVIDIA Stand-in 1 {uuid(1)}"
    gpus.say({"1.kind": 2})
    told = found({})["NVML"]
    assert (told.state, "CUDA_DEVICE_ORDER" in told.remedy) == ("warn", True)
    gpus.say({"error.nvmlInitWithFlags": 9})
    assert found()["NVML"].state == "warn"


def test_a_driver_that_hangs_is_told_and_not_waited_for(parts, gpus, monkeypatch):
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.2)
    gpus.say({"hang.nvmlDeviceGetCount": 1})
    told = found()["NVML"]
    assert (told.state, "hangs" in told.detail) == ("fail", True)
    gpus.silence("hang.nvmlDeviceGetCount")


def test_a_machine_without_a_driver_is_told_so(parts, tmp_path, monkeypatch):
    def no_library(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(doctor.ctypes, "CDLL", no_library)
    told = found()["driver"]
    assert (told.state, "libcuda.so.1" in told.detail) == ("fail", True)
    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda _: None)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 999.1\nGCC\n")
    told = found(root=tmp_path)["driver"]
    assert (told.state, told.detail) == ("ok", "NVRM version: 999.1")


def test_another_profiler_in_the_way_is_named(parts, tmp_path):
    for number, name in (("12", "nsys"), ("13", "python"), ("self", "ncu")):
        (tmp_path / "proc" / number).mkdir(parents=True)
        (tmp_path / "proc" / number / "comm").write_text(f"{name}\n")
    told = found({"CUDA_INJECTION64_PATH": "/x.so"}, tmp_path)["other profilers"]
    assert told.state == "warn"
    assert told.detail.startswith("CUDA_INJECTION64_PATH is set, nsys runs: ")


@pytest.mark.parametrize(
    ("said", "user", "state"),
    [("1", 1000, "warn"), ("1", 0, "ok"), ("0", 1000, "ok")],
)
def test_profiling_for_administrators_alone_is_told(
    parts, tmp_path, monkeypatch, said, user, state
):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    params = tmp_path / "proc/driver/nvidia/params"
    params.write_text(f"ResmanDebugLevel: 1\nRmProfilingAdminOnly: {said}\n")
    monkeypatch.setattr(doctor.os, "geteuid", lambda: user)
    told = found(root=tmp_path)["permissions"]
    assert told.state == state
    assert ("NVreg_RestrictProfilingToAdminUsers=0" in told.remedy) == (state == "warn")


def test_the_endpoint_is_asked_with_an_empty_request(parts, kat):
    parts.endpoint = endpoint(kat.http_port)
    told = found()["endpoint for traces"]
    assert (told.state, told.detail) == ("ok", f"{parts.endpoint.url} answers")
    parts.endpoint.headers["authorization"] = "Bearer wrong"
    told = found()["endpoint for traces"]
    assert (told.state, told.remedy) == ("fail", "give the right one")
    parts.endpoint.url = parts.endpoint.url.replace("traces", "nothing")
    parts.endpoint.headers["authorization"] = f"Bearer {TOKEN}"
    assert found()["endpoint for traces"].detail.endswith("answers 404")


def test_an_endpoint_that_is_not_there_is_a_finding(parts):
    told = found()["endpoint for traces"]
    assert told.state == "fail"
    assert "start the collector" in told.remedy
    parts.endpoint = endpoint(protocol="grpc")
    told = found()["endpoint for traces"]
    assert (told.state, "not asked here" in told.detail) == ("ok", True)


def test_the_control_channel_is_asked_with_the_token_and_orders_nobody(parts, kat, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    said = {
        "KAT_CONTROL_ENDPOINT": f"http://127.0.0.1:{kat.control_port}/v1/opamp",
        "KAT_CONTROL_TOKEN_FILE": str(file),
    }
    assert found(said)["control channel"].state == "ok"
    assert kat.books.marked("polls answered") == 0, "no worker seems to have come"
    file.write_text("wrong")
    told = found(said)["control channel"]
    assert (told.state, "refuses the token (401)" in told.detail) == ("fail", True)
    file.unlink()
    assert "cannot be read" in found(said)["control channel"].detail
    assert found()["control channel"].state == "warn"
    assert found({"KAT_CONTROL_ENDPOINT": "nonsense://"})["control channel"].state == "fail"


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(parts, tmp_path):
    pki = Pki(tmp_path)
    control = ControlConfig(endpoint="127.0.0.1:0", tls=pki.tls())
    config = Config(
        receiver=ReceiverConfig(endpoint="127.0.0.1:0"),
        exporter=ExporterConfig(endpoint=None),
        control=control,
    )
    with Processor(config) as processor:
        said = {"KAT_CONTROL_ENDPOINT": f"https://localhost:{processor.control_port}/v1/opamp"}
        assert "certificate" in found(said)["control channel"].detail.lower()
        trusting = said | {"KAT_CONTROL_CERTIFICATE": str(pki.ca[0])}
        assert found(trusting)["control channel"].state == "ok"


def test_a_kill_switch_that_is_set_is_told_first(parts):
    assert next(iter(found({"OTEL_SDK_DISABLED": "true"}))) == "switch"
    assert found({"KAT_MODE": "off"})["switch"].detail == "KAT_MODE=off: nothing is captured"


def test_kat_doctor_has_a_worker_side_and_so_has_an_installation_without_commands(gpus):
    command = [sys.executable, "-m", "kat_otel", "doctor", "--worker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    states = {line.split()[0] for line in done.stdout.splitlines()}
    assert states <= {"ok", "warn", "fail"}, done.stderr
    assert done.returncode == int("fail" in states), done.stderr
    assert f"CUDA device 0 is NVIDIA Stand-in 1 {uuid(0)}" in done.stdout
    data = subprocess.run([*command, "--format", "json"], capture_output=True, check=False)
    topics = [finding["topic"] for finding in json.loads(data.stdout)["findings"]]
    assert topics == TOPICS
    light = [sys.executable, "-m", "kat_otel.instrumentation.doctor"]
    alone = subprocess.run(light, capture_output=True, text=True, check=False)
    assert (alone.returncode, alone.stdout) == (done.returncode, done.stdout)
    both = subprocess.run(
        [*command, "--config", "x.yaml"], capture_output=True, text=True, check=False
    )
    assert both.returncode == 2
    assert "without --config" in both.stderr
