"""Lines of logs that say something about hardware: the kernel's, NCCL's and the engines'.

A pattern looks for a fixed text first and then matches a regular expression without nested
or adjacent unbounded repeats on the first 1,024 characters of the line, so that no line costs more
than a few microseconds. What a line says is told in words of ours; its text is untrusted.

Forms: NVIDIA's Xid documentation and reports in open-gpu-kernel-modules and gpud
(``NVRM: Xid (PCI:0000:9b:00): 94, pid=...``), nccl issues 1664 and 1814 (``NCCL WARN NET/IB : Got
completion from peer ...``), vLLM's and SGLang's scheduler warnings, the kernel's EDAC, MCE, AER,
OOM and watchdog messages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kat_otel.hardware.identity import pci_key
from kat_otel.hardware.readings import Signal

__all__ = ["LINE_LIMIT", "XID_WORDS", "LogSign", "gpu_alias", "read_line"]

LINE_LIMIT: Final = 1024
"""Characters of a line that are looked at."""

XID_WORDS: Final[dict[str, str]] = {
    "13": "graphics engine exception",
    "31": "GPU memory page fault",
    "32": "invalid or corrupted push buffer stream",
    "38": "driver firmware error",
    "43": "GPU stopped processing",
    "45": "preemptive cleanup after earlier errors",
    "46": "GPU stopped processing",
    "48": "double-bit ECC error",
    "61": "internal micro-controller warning",
    "62": "internal micro-controller halt",
    "63": "row remap or page retirement recorded",
    "64": "row remap or page retirement failed",
    "69": "graphics engine class error",
    "74": "NVLink error",
    "79": "GPU has fallen off the bus",
    "92": "high single-bit ECC error rate",
    "94": "contained ECC error",
    "95": "uncontained ECC error",
    "109": "context switch timeout",
    "119": "GSP RPC timeout",
    "120": "GSP error",
    "121": "chip-to-chip link error",
    "140": "unrecovered ECC error",
    **{str(code): "NVLink error" for code in range(144, 151)},
}
"""What an Xid means (NVIDIA's Xid catalog); others are named by their number alone."""


@dataclass(frozen=True, slots=True)
class LogSign:
    """What a line says.

    Attributes:
        signal: which signal.
        detail: Xid code, kind of NCCL warning, ``corrected`` or ``uncorrected``.
        pci: the device it names, comparable, or ``""``.
    """

    signal: Signal
    detail: str = ""
    pci: str = ""


_PCI = r"(?P<pci>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2})"
_NCCL_KINDS: Final = (
    ("ib", ("NET/IB", "ibv_", "vendor err", "IB :")),
    ("socket", ("NET/Socket", "socketPoll", "socketProgress", "Connection ", "connect to")),
    ("nvlink", ("NVLink", "NVLINK", "nvls", "NVLS")),
    ("pcie", ("PCIe", "PCI link", "GDR")),
    ("cuda", ("Cuda failure", "CUDA failure")),
)


@dataclass(frozen=True, slots=True)
class _Pattern:
    needle: str
    expression: re.Pattern[str]
    signal: Signal
    detail: str = ""


def _pattern(needle: str, expression: str, signal: Signal, detail: str = "") -> _Pattern:
    return _Pattern(needle, re.compile(expression), signal, detail)


_PATTERNS: Final = (
    _pattern("Xid (PCI:", rf"Xid \(PCI:{_PCI}(?:\.[0-7])?\): (?P<detail>\d{{1,4}})\b", "xid"),
    _pattern("fallen off the bus", rf"GPU (?:at PCI:)?{_PCI}", "xid", "79"),
    _pattern("preempted", r"preempted by PreemptionMode\.", "engine_preemption"),
    _pattern("Preempting request", r"Preempting request ", "engine_preemption"),
    _pattern("Retract requests", r"KV cache pool is full", "engine_preemption"),
    _pattern("CUDA out of memory", r"", "engine_out_of_memory"),
    _pattern("torch.OutOfMemoryError", r"", "engine_out_of_memory"),
    _pattern("Out of memory: Kill", r"", "out_of_memory_kill"),
    _pattern("oom-kill:", r"", "out_of_memory_kill"),
    _pattern("Memory cgroup out of memory", r"", "out_of_memory_kill"),
    _pattern("EDAC ", r"EDAC MC\d{1,3}: \d{1,9} CE ", "memory_error", "corrected"),
    _pattern("EDAC ", r"EDAC MC\d{1,3}: \d{1,9} UE ", "memory_error", "uncorrected"),
    _pattern("Memory failure: 0x", r"", "memory_error", "uncorrected"),
    _pattern("temperature above threshold", r"cpu clock throttled", "cpu_thermal"),
    _pattern("soft lockup", r"BUG: soft lockup", "cpu_lockup"),
    _pattern("rcu_sched self-detected stall", r"", "cpu_lockup"),
    _pattern("blocked for more than", r"task [^\n]{1,80} blocked for more than", "cpu_lockup"),
    _pattern(" received: ", rf"AER: .{{0,60}}errors? received: {_PCI}", "pcie_error"),
    _pattern("PCIe Bus Error", rf"{_PCI}\.[0-7]: PCIe Bus Error", "pcie_error"),
    _pattern("Link is Down", r"(?i)link is down", "link_down"),
    _pattern("Link is down", r"", "link_down"),
    _pattern("mlx5_", r"port \d{1,3} (?:down|link down)", "link_down"),
    _pattern("I/O error, dev", r"I/O error, dev ", "disk_error"),
    _pattern("nvme", r"nvme\d{1,4}.{0,8}: I/O .{0,60}timeout", "disk_error"),
)

_ALIAS: Final = re.compile(
    rf"NVRM: GPU at PCI:{_PCI}(?:\.[0-7])?: (?P<uuid>GPU-[0-9A-Fa-f]{{8}}(?:-[0-9A-Fa-f]{{4}}){{3}}"
    r"-[0-9A-Fa-f]{12})"
)


def read_line(text: str) -> LogSign | None:
    """Returns what a line says about hardware, or None: nearly all lines say nothing."""
    line = text[:LINE_LIMIT]
    if "NCCL " in line:
        return _nccl(line)
    for pattern in _PATTERNS:
        if pattern.needle in line:
            found = pattern.expression.search(line)
            if found is not None:
                said = found.groupdict()
                pci = pci_key(said.get("pci") or "")
                return LogSign(pattern.signal, said.get("detail") or _severity(pattern, line), pci)
    return None


def gpu_alias(text: str) -> tuple[str, str] | None:
    """Returns (PCI address, uuid) if the line is the driver's introduction of a GPU."""
    if "NVRM: GPU at PCI:" not in text:
        return None
    found = _ALIAS.search(text[:LINE_LIMIT])
    return (pci_key(found["pci"]), found["uuid"]) if found else None


def _nccl(line: str) -> LogSign | None:
    warning = "NCCL WARN" in line
    if not warning and not ("NET/" in line and ("timed out" in line or "retry" in line)):
        return None
    for kind, marks in _NCCL_KINDS:
        if any(mark in line for mark in marks):
            return LogSign("nccl_warning", kind)
    return LogSign("nccl_warning", "other")


def _severity(pattern: _Pattern, line: str) -> str:
    if pattern.signal != "pcie_error":
        return pattern.detail
    return "uncorrected" if "Uncorrect" in line else "corrected"
