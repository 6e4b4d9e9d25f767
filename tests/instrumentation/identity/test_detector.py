"""Where a worker runs, told from its environment and files."""

import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.resources import get_aggregated_resources

from kat_otel.instrumentation.identity.detector import KatResourceDetector, detect, local_device
from tests.instrumentation.standin_gpus import python, uuid

BOX = "a" * 63 + "1"
POD = "b" * 63 + "2"
MOUNTED = f"9 1 0:1 /var/lib/docker/containers/{BOX}/hostname /etc/hostname rw - ext4 x rw\n"


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("environment", "device"),
    [
        ({}, None),
        ({"LOCAL_RANK": "3"}, 3),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "2"}, 2),
        ({"SLURM_LOCALID": "1", "LOCAL_RANK": "0"}, 0),
        ({"LOCAL_RANK": "x", "SLURM_LOCALID": "1"}, 1),
        ({"LOCAL_RANK": "-1"}, None),
        ({"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "5"}, 0),  # it sees one GPU alone
        ({"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "4,5,6,7"}, 3),
    ],
)
def test_the_launcher_says_which_device_the_process_will_use(environment, device):
    assert local_device(environment) == device


def test_the_gpu_the_host_and_the_process_are_named(gpus, write):
    root = write("proc/sys/kernel/hostname", "node-7\n")
    assert detect({"LOCAL_RANK": "1"}, root) == {
        "host.name": "node-7",
        "process.pid": os.getpid(),
        "hw.id": uuid(1),
        "hw.pci.bus_id": "00000000:11:00.0",
        "hw.model": "NVIDIA Stand-in 1",
    }
    assert "hw.id" not in detect({}, root), "which of two nobody said"


def test_the_pod_is_known_by_variables_files_and_its_service_account(write):
    write("etc/podinfo/name", "server-0\n")
    write("etc/podinfo/uid", "123\n")
    root = write("var/run/secrets/kubernetes.io/serviceaccount/namespace", "serving")
    found = detect({"POD_NAME": "server-1", "NODE_NAME": "n", "K8S_CONTAINER_NAME": "vllm"}, root)
    assert {key: value for key, value in found.items() if key.startswith("k8s.")} == {
        "k8s.pod.name": "server-1",
        "k8s.pod.uid": "123",
        "k8s.namespace.name": "serving",
        "k8s.node.name": "n",
        "k8s.container.name": "vllm",
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cgroup", f"12:cpu:/x\n3:memory:/docker/{BOX}\n"),
        ("cgroup", f"1:name=systemd:/kubepods/pod9/cri-containerd-{BOX}.scope\n"),
        (
            "mountinfo",
            f"9 1 0:1 /containers/sandboxes/{POD}/hostname /etc/hosts rw - ext4 x rw\n" + MOUNTED,
        ),
    ],
)
def test_the_container_is_known_by_its_cgroup_or_its_mounts(write, file, text):
    root = write(f"proc/self/{file}", text)
    write("proc/self/status", "")
    assert detect({}, root)["container.id"] == BOX


@pytest.mark.parametrize("text", ["", "0::/\n", "a:b:c\n", "\0", f"1:x:/{BOX}ff\n"])
def test_no_container_is_no_id(write, text):
    write("proc/self/mountinfo", text)
    assert "container.id" not in detect({}, write("proc/self/cgroup", text))


def test_what_is_too_long_to_be_a_name_is_cut(write):
    root = write("etc/podinfo/uid", "u" * 1_000)
    found = detect({"POD_NAME": "p" * 1_000}, root)
    assert (len(found["k8s.pod.name"]), len(found["k8s.pod.uid"])) == (256, 256)


def test_this_machine_is_named():
    found = detect(os.environ)
    assert found["host.name"]
    assert found["process.pid"] == os.getpid()


def test_opentelemetry_finds_the_detector_by_its_name_and_forgives_it_everything(
    gpus, monkeypatch, caplog
):
    program = (
        "from opentelemetry.sdk.resources import Resource\n"
        "print(Resource.create().attributes['hw.id'])\n"
    )
    said = {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "kat", "LOCAL_RANK": "0"}
    assert python(program, said).strip() == uuid(0)

    def fail(*_):
        raise OSError("no such host")

    monkeypatch.setattr("kat_otel.instrumentation.identity.detector.detect", fail)
    assert get_aggregated_resources([KatResourceDetector()]).attributes["service.name"]
    assert "could not be detected" in caplog.text
    with pytest.raises(OSError, match="no such host"):
        KatResourceDetector(raise_on_error=True).detect()


def test_cuda_is_not_initialised_by_asking():
    program = (
        "import os, sys\n"
        "from kat_otel.instrumentation.identity.detector import detect\n"
        "detect(os.environ)\n"
        "print('libcuda' in open('/proc/self/maps').read(), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
