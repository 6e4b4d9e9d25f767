"""Where the worker runs: GPU, host, process, pod and container, for its OTLP resource.

Nothing is asked over the network. The pod is known by the downward API, as environment variables
or as files; see ``docs/hardware-signals.md``. What cannot be told is left out.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from opentelemetry.sdk.resources import Resource, ResourceDetector

from kat_otel import semconv
from kat_otel.instrumentation.hardware.gpu_identity import hardware_identity

__all__ = ["KatResourceDetector", "detect", "local_device"]

logger: Final = logging.getLogger(__name__)

_LOCAL_RANK: Final = (
    "LOCAL_RANK",  # torchrun, DeepSpeed
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
)
_POD: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "k8s.pod.name": (("K8S_POD_NAME", "POD_NAME"), "name"),
    "k8s.pod.uid": (("K8S_POD_UID", "POD_UID"), "uid"),
    "k8s.namespace.name": (("K8S_NAMESPACE_NAME", "POD_NAMESPACE", "K8S_NAMESPACE"), "namespace"),
    "k8s.node.name": (("K8S_NODE_NAME", "NODE_NAME"), "nodename"),
    "k8s.container.name": (("K8S_CONTAINER_NAME", "CONTAINER_NAME"), "containername"),
}
"""Attribute -> variables and file under ``/etc/podinfo`` that the downward API fills."""
_SERVICE_ACCOUNT: Final = "var/run/secrets/kubernetes.io/serviceaccount/namespace"
_LONGEST: Final = 256

_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def detect(environment: Mapping[str, str], root: str | Path = "/") -> dict[str, str | int]:
    """Returns the resource attributes that can be told here.

    Args:
        environment: of the process.
        root: where ``proc`` and ``etc`` are.
    """
    folder = Path(root)
    found: dict[str, str | int] = {
        semconv.HOST_NAME: _text(folder / "proc/sys/kernel/hostname") or socket.gethostname(),
        "process.pid": os.getpid(),
    }
    device = local_device(environment)
    if device is not None:
        gpu = hardware_identity(device, environment)
        if gpu.hw_id:
            found[semconv.HARDWARE_ID] = gpu.hw_id
        if gpu.pci_bus_id:
            found["hw.pci.bus_id"] = gpu.pci_bus_id
        if gpu.name:
            found["hw.model"] = gpu.name
    for attribute, (variables, file) in _POD.items():
        said = next((environment[v] for v in variables if environment.get(v)), "")
        said = said.strip()[:_LONGEST] or _text(folder / "etc/podinfo" / file)
        if not said and attribute == "k8s.namespace.name":
            said = _text(folder / _SERVICE_ACCOUNT)
        if said:
            found[attribute] = said
    container = _container(folder)
    if container:
        found["container.id"] = container
    return found


def local_device(environment: Mapping[str, str]) -> int | None:
    """Returns CUDA's ordinal that this process will use, as its launcher says; None if unsaid.

    A launcher that shows each process one GPU alone and counts local ranks all the same is
    understood: then it is 0.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and "," not in visible:
        return 0
    for variable in _LOCAL_RANK:
        said = environment.get(variable, "")
        if said.isascii() and said.isdecimal():
            return int(said)
    return None


class KatResourceDetector(ResourceDetector):
    """The entry point: ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=kat``."""

    def detect(self) -> Resource:
        """Returns what :func:`detect` found."""
        try:
            return Resource(detect(os.environ))
        except Exception:
            if self.raise_on_error:
                raise
            logger.exception("the resource could not be detected; the worker goes on without")
            return Resource.get_empty()


def _container(root: Path) -> str:
    """Returns the id of the container: cgroup version 1 names it, else a mount of its files."""
    for line in _text(root / "proc/self/cgroup", 65_536).splitlines():
        ids = _ID.findall(line.rpartition("/")[2])
        if ids:
            return ids[-1]
    for line in _text(root / "proc/self/mountinfo", 1 << 20).splitlines():
        # /var/lib/docker/containers/<id>/hostname; a pod's sandbox has its own kind of folder
        parts = line.split(" ")
        if len(parts) > 3 and "/sandboxes/" not in parts[3] and "/containers/" in parts[3]:
            ids = _ID.findall(parts[3])
            if ids:
                return ids[-1]
    return ""


def _text(path: Path, limit: int = _LONGEST) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(limit).strip()
    except OSError:  # not on this system, or not for us
        return ""
