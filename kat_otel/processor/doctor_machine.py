"""Checks of the machine: Python, packages, array backend, compiled code, memory, clock."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import platform
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

from kat_otel.config import Config
from kat_otel.finding import Finding

__all__ = ["check_machine"]

_EXTRA: Final = "pip install 'kat-otel[processor]'"
_RELEASED_NS: Final = 1_750_000_000 * 10**9  # no clock that is right shows an earlier time
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[.*?\])?\s*([^;]*)")
_AT_LEAST: Final = re.compile(r">=\s*([0-9.]+)")


def check_machine(config: Config) -> Iterator[Finding]:
    """Yields what is found about the machine."""
    yield _python()
    yield _packages()
    yield _backend()
    yield _compiled()
    yield _memory(config)
    yield _clock()


def _python() -> Finding:
    found = platform.python_version()
    if (3, 11) <= sys.version_info < (3, 14):
        return Finding("python", "ok", f"{found}, {platform.machine()}")
    return Finding("python", "fail", f"{found}", "use Python 3.11, 3.12 or 3.13")


def _packages() -> Finding:
    try:
        own, wanted = version("kat-otel"), requires("kat-otel") or []
    except PackageNotFoundError:
        return Finding("packages", "warn", "kat-otel is not installed as a package", _EXTRA)
    problems: list[str] = []
    mine = [line for line in wanted if ";" not in line or "extra == 'processor'" in line]
    for line in mine:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, bounds = match.groups()
        least = _AT_LEAST.search(bounds)
        try:
            found = version(name)
        except PackageNotFoundError:
            problems.append(f"{name} is missing")
            continue
        if least and _numbers(found) < _numbers(least[1]):
            problems.append(f"{name} {found} is older than {least[1]}")
    if problems:
        return Finding("packages", "fail", "; ".join(problems), _EXTRA)
    return Finding("packages", "ok", f"kat-otel {own}, and all {len(mine)} that it needs")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:4])


def _backend() -> Finding:
    numpy: Any = importlib.import_module("numpy")
    chosen = f"NumPy {numpy.__version__} on the CPU"
    if importlib.util.find_spec("cupy") is None:
        return Finding("array backend", "ok", f"{chosen}; CuPy is not installed")
    try:
        cupy: Any = importlib.import_module("cupy")
        there = bool(cupy.is_available())
    except Exception as error:  # noqa: BLE001 - a broken driver raises anything at import
        return Finding(
            "array backend",
            "warn",
            f"{chosen}; CuPy cannot be loaded ({type(error).__name__}: {error})",
            "pip install 'kat-otel[cuda12]' (or cuda13) to match the driver, or remove CuPy",
        )
    gpu = "a GPU is there, which kat process does not use" if there else "finds no GPU"
    return Finding("array backend", "ok", f"{chosen}; CuPy {cupy.__version__}: {gpu}")


def _compiled() -> Finding:
    compiled: Any = importlib.import_module("kat_otel.compiled")
    if compiled.INTERPRETED:
        return Finding(
            "compiled code",
            "warn",
            "NUMBA_DISABLE_JIT is set: decoding runs as Python, a thousand times slower",
            "unset NUMBA_DISABLE_JIT",
        )
    source = Path(str(importlib.import_module("kat_otel.otlp").__file__))
    beside = source.parent / "__pycache__"
    folder: Path | None = compiled.cache_folder(str(source))
    for place in (beside, folder):
        kept = [] if place is None else list(place.glob("*.nbi"))
        if kept:
            detail = f"{len(kept)} functions kept in {place} for {compiled.BASELINE}"
            return Finding("compiled code", "ok", detail)
    remedy = "python -m kat_otel.otlp.warm, at installation or when an image is built"
    if folder is None:
        return Finding(
            "compiled code", "warn", "no folder is writable: every start compiles anew", remedy
        )
    return Finding("compiled code", "warn", "not made yet: the first start compiles", remedy)


def _memory(config: Config) -> Finding:
    wanted = (
        config.assembler.max_pending_mib
        + config.receiver.queue_size_mib
        + config.exporter.queue_size_mib
    )
    there = _memory_mib()
    detail = f"{there:,} MiB; steps and queues may take {wanted:,} MiB"
    if there and wanted > 0.8 * there:
        remedy = "lower assembler.max_pending_mib or receiver.queue_size_mib, or give more memory"
        return Finding("memory", "warn", detail, remedy)
    return Finding("memory", "ok", detail if there else f"not known; {wanted:,} MiB wanted")


def _memory_mib() -> int:
    """Returns what this machine or container has; 0 if that cannot be told."""
    found: list[int] = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _text(path)
        if text.strip().isdecimal():
            found.append(int(text) >> 20)
    if match := re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE):
        found.append(int(match[1]) >> 10)
    return min(found, default=0)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # another system: nothing to tell from
        return ""


def _clock() -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    remedy = "run chrony or systemd-timesyncd on the host (timedatectl tells its state)"
    if time.time_ns() < _RELEASED_NS:
        return Finding("clock", "fail", f"{now} is before this version was made", remedy)
    state = _clock_state()
    if state is None:
        return Finding("clock", "ok", f"{now}; whether it is synchronised cannot be told here")
    synchronised, error_us = state
    if not synchronised:
        detail = f"{now}, not synchronised: spans of several hosts may not line up"
        return Finding("clock", "warn", detail, remedy)
    return Finding("clock", "ok", f"{now}, synchronised, off by {error_us / 1e3:,.1f} ms at most")


class _Timex(ctypes.Structure):
    """The head of ``struct timex`` (adjtimex(2)), and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def _clock_state() -> tuple[bool, int] | None:
    """Returns whether the kernel calls the clock synchronised, and its error at most in µs."""
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()  # modes 0: it is only read
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    unsynchronised = 0x40
    if answer < 0:
        return None
    return not timex.status & unsynchronised, int(timex.maxerror)
