"""What ``kat doctor --worker`` looks at: will this process's kernels be seen, and where will
they go? Needs no more than a worker has: ``python -m kat_otel.instrumentation.doctor`` is the same.

Nothing is changed, no CUDA context is made, and the endpoints get empty requests alone.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import urllib3

from kat_otel.errors import KatError
from kat_otel.finding import Finding
from kat_otel.instrumentation.hardware.gpu_identity import hardware_identity, load_nvml
from kat_otel.instrumentation.settings import Settings
from kat_otel.opamp import AgentToServer

__all__ = ["examine_worker"]

_PATIENCE_S: Final = 5.0
_CAPTURE: Final = "kat_otel.instrumentation.capture.library"
_CUPTI: Final = "kat_otel.instrumentation.capture.libcupti"
_ENDPOINTS: Final = "kat_otel.instrumentation.sending.endpoints"
_PROFILERS: Final = frozenset({"nsys", "nsys-launcher", "ncu", "nvprof", "nv-nsight-cu-cl"})
_INJECTIONS: Final = ("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID")
_PROTOBUF: Final = "application/x-protobuf"
_SHOWN: Final = 300


def examine_worker(environment: Mapping[str, str], root: str | Path = "/") -> Iterator[Finding]:
    """Yields the findings about a worker that would start here, each as soon as it is known.

    Args:
        environment: the worker's.
        root: where ``proc`` is.
    """
    settings = Settings.read(environment)
    if settings.disabled or settings.mode == "off":
        why = "OTEL_SDK_DISABLED" if settings.disabled else "KAT_MODE=off"
        yield Finding("switch", "warn", f"{why}: nothing is captured", f"unset {why}")
    proc = Path(root) / "proc"
    yield _library()
    yield _driver(proc)
    yield _nvml(environment)
    yield _cupti(settings, environment)
    yield _others(environment, proc)
    yield _permissions(proc)
    yield _otlp(environment)
    yield _control(settings)


def _library() -> Finding:
    topic, remedy = "capture library", "pip install --force-reinstall kat-otel"
    try:
        importlib.import_module(_CAPTURE).load()
    except ImportError as error:
        return Finding(topic, "fail", f"this installation has none ({error})", remedy)
    except KatError as error:
        found, mend = getattr(error, "reason", error), getattr(error, "remedy", "")
        return Finding(topic, "fail", str(found), str(mend or remedy))
    return Finding(topic, "ok", "built, and it loads")


def _driver(proc: Path) -> Finding:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        remedy = "run on a machine with an NVIDIA driver; in a container: --gpus all"
        return Finding("driver", "fail", f"no NVIDIA driver: {error}", remedy)
    lines = _text(proc / "driver/nvidia/version").splitlines()
    return Finding("driver", "ok", lines[0] if lines else "libcuda.so.1 loads")


def _nvml(environment: Mapping[str, str]) -> Finding:
    """Asked from a thread of its own: a sick driver may never answer."""
    found: list[Finding] = []
    asking = threading.Thread(target=lambda: found.append(_ask_nvml(environment)), daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    if found:
        return found[0]
    detail = f"no answer within {_PATIENCE_S:g} s: the driver hangs"
    return Finding("NVML", "fail", detail, "see dmesg for NVRM lines; the GPU may need a reset")


def _ask_nvml(environment: Mapping[str, str]) -> Finding:
    try:
        nvml = load_nvml()
    except ImportError as error:
        return Finding("NVML", "warn", f"no module ({error})", "pip install nvidia-ml-py")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        remedy = "install the driver's libnvidia-ml.so.1 (in a container: the capability 'utility')"
        return Finding("NVML", "warn", f"no metrics of the GPU: {error}", remedy)
    try:
        version, count = nvml.nvmlSystemGetDriverVersion(), nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return Finding("NVML", "warn", f"no metrics of the GPU: {error}", "see dmesg")
    finally:
        nvml.nvmlShutdown()
    first = hardware_identity(0, environment)
    if not first.hw_id:
        return Finding(
            "NVML",
            "warn",
            f"driver {version}, {count} GPUs; which one CUDA device 0 is cannot be told",
            "see CUDA_VISIBLE_DEVICES, and set CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
    named = f"CUDA device 0 is {first.name} {first.hw_id}"
    return Finding("NVML", "ok", f"driver {version}, {count} GPUs; {named}")


def _cupti(settings: Settings, environment: Mapping[str, str]) -> Finding:
    """Loads what capture would load, the first that can be; the server may have mapped another."""
    remedy = "pip install nvidia-cuda-cupti-cu12 (or cu13), or set KAT_CUPTI_LIBRARY"
    try:
        find: Any = importlib.import_module(_CUPTI).find
    except ImportError as error:
        return Finding("CUPTI", "fail", f"this installation cannot look ({error})", remedy)
    tried: list[str] = []
    for candidate in find(settings.cupti, environment=environment):
        try:
            ctypes.CDLL(candidate.path)
        except OSError as error:
            tried.append(f"{candidate.path} ({candidate.where}): {error}")
        else:
            what = f"{candidate.path} ({candidate.where}) would be loaded"
            return Finding("CUPTI", "ok", f"{what}, unless the server has mapped another")
    detail = _printable("; ".join(tried)) or "not in a wheel, nor in a toolkit"
    return Finding("CUPTI", "fail", f"no libcupti: {detail}", remedy)


def _others(environment: Mapping[str, str], proc: Path) -> Finding:
    """CUPTI has one subscriber at a time up to CUDA 13.2: who comes second gets nothing."""
    injected = [name for name in _INJECTIONS if environment.get(name)]
    running = sorted({name for name in _processes(proc) if name in _PROFILERS})
    if injected or running:
        said = [f"{name} is set" for name in injected] + [f"{name} runs" for name in running]
        return Finding(
            "other profilers",
            "warn",
            f"{', '.join(said)}: CUPTI may be taken, then no kernels are captured",
            "end the other profiler, or unset the variable",
        )
    return Finding("other profilers", "ok", "none is seen; torch.profiler in the server is one too")


def _processes(proc: Path) -> Iterator[str]:
    try:
        folders = [folder for folder in proc.iterdir() if folder.name.isdecimal()]
    except OSError:
        return
    for folder in folders:
        yield _text(folder / "comm").strip()


def _permissions(proc: Path) -> Finding:
    topic = "permissions"
    said = _text(proc / "driver/nvidia/params")
    if not said:
        return Finding(topic, "ok", "the driver says nothing of restrictions here")
    restricted = any(
        line.partition(":")[2].strip() == "1"
        for line in said.splitlines()
        if line.startswith(("RmProfilingAdminOnly:", "NVreg_RestrictProfilingToAdminUsers:"))
    )
    if not restricted or os.geteuid() == 0:
        return Finding(topic, "ok", "profiling is allowed")
    return Finding(
        topic,
        "warn",
        "profiling is for administrators; tracing needs none of it, but if CUPTI says "
        "INSUFFICIENT_PRIVILEGES, this is why",
        "options nvidia NVreg_RestrictProfilingToAdminUsers=0 in /etc/modprobe.d, or CAP_SYS_ADMIN",
    )


def _otlp(environment: Mapping[str, str]) -> Finding:
    topic = "endpoint for traces"
    try:
        endpoint: Any = importlib.import_module(_ENDPOINTS).Endpoint.read(environment, "traces")
    except ImportError as error:
        return Finding(topic, "fail", f"this installation cannot send ({error})", "reinstall")
    if endpoint.protocol == "grpc":
        detail = f"{endpoint.url} is gRPC, which is not asked here"
        return Finding(topic, "ok", f"{detail}; kat doctor --config FILE asks an endpoint so")
    remedy = "start the collector (its otlp receiver's http endpoint), or set "
    return _post(
        topic,
        endpoint.url,
        body=b"",
        headers=dict(endpoint.headers),
        ca_file=endpoint.ca_file,
        remedy=f"{remedy}OTEL_EXPORTER_OTLP_ENDPOINT",
        client=(endpoint.cert_file, endpoint.key_file),
    )


def _control(settings: Settings) -> Finding:
    topic = "control channel"
    if not settings.control_endpoint:
        detail = "none: nobody can ask for whole steps; digests and sampled steps flow"
        return Finding(topic, "warn", detail, "set KAT_CONTROL_ENDPOINT to kat process's control")
    headers: dict[str, str] = {}
    if settings.control_token_file:
        try:
            token = Path(settings.control_token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            return Finding(topic, "fail", f"the token cannot be read: {error}", "mend the file")
        headers["authorization"] = f"Bearer {token}"
    return _post(
        topic,
        settings.control_endpoint,
        body=AgentToServer(instance_uid=bytes(16)).encode(),  # a stranger's: nothing is ordered
        headers=headers,
        ca_file=settings.control_ca_file,
        remedy="start kat process with control.endpoint, or mend KAT_CONTROL_ENDPOINT",
    )


def _post(
    topic: str,
    url: str,
    *,
    body: bytes,
    headers: dict[str, str],
    ca_file: str,
    remedy: str,
    client: tuple[str, str] = ("", ""),
) -> Finding:
    pool = urllib3.PoolManager(
        retries=False,
        timeout=_PATIENCE_S,
        ca_certs=ca_file or None,
        cert_file=client[0] or None,
        key_file=client[1] or None,
    )
    try:
        said = pool.request(
            "POST",
            url,
            body=body,
            headers={**headers, "content-type": _PROTOBUF},
            redirect=False,
            preload_content=False,
        )
        status = int(said.status)
        said.release_conn()
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        return Finding(topic, "fail", _printable(f"{url}: {error}"), remedy)
    finally:
        pool.clear()
    if status in {401, 403}:
        return Finding(topic, "fail", f"{url} refuses the token ({status})", "give the right one")
    if status != 200:
        return Finding(topic, "fail", f"{url} answers {status}", remedy)
    return Finding(topic, "ok", f"{url} answers")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_SHOWN])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not here, or gone meanwhile
        return ""


def main() -> int:
    """Prints a line a finding; returns 1 if something must be mended."""
    failed = False
    for finding in examine_worker(os.environ):
        failed |= finding.state == "fail"
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        sys.stdout.write(f"{finding.state:<4}  {finding.topic}: {finding.detail}{remedy}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
