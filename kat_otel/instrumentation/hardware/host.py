"""What the kernel says of the worker's process and of its host, from /proc and /sys.

Counters of the process only ever grow here, whatever its threads do. What concerns the whole host
is told by one worker of an instance on it, or counters of several would be taken for one.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kat_otel.instrumentation.hardware.metrics import Measure

__all__ = ["HostReader", "HostTeller", "ProcessReader"]

logger: Final = logging.getLogger(__name__)

_MOST_THREADS: Final = 1_024
"""Threads of a process that are looked at; the main thread and the oldest come first."""
_MOST_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 16
_MHZ: Final = re.compile(rb"^processor\s*:\s*(\d+)|^cpu MHz\s*:\s*([0-9.]+)", re.MULTILINE)
_PRESSURE: Final = re.compile(rb"^(some|full) .*total=(\d+)", re.MULTILINE)
_DEEPEST: Final = 64


class _Thread(NamedTuple):
    """``/proc/PID/task/TID/schedstat``, in ns."""

    ran: int
    waited: int


class ProcessReader:
    """Reads what the kernel says of one process and its cgroup.

    Args:
        pid: the worker's.
        root: where ``proc`` and ``sys`` are.

    Attributes:
        counts: of what could not be read or was left out, by reason.
    """

    def __init__(self, pid: int, root: str | Path = "/") -> None:
        self._proc = Path(root) / "proc"
        self._cpus = Path(root) / "sys/devices/system/cpu"
        self._own = self._proc / str(pid)
        self._pid = pid
        self._threads: dict[str, _Thread] = {}
        self._waited = 0
        self._since_ns = time.time_ns()
        self._cgroups = _cgroups(Path(root), self._own)
        self.counts: Counter[str] = Counter()

    def read(self) -> list[Measure]:
        """Returns what is known now; nothing of a process that has gone."""
        return [*self._scheduled(), *self._memory(), *self._cgroup()]

    def _scheduled(self) -> Iterator[Measure]:
        """The wait of the thread that waited most: a sum over threads would exceed the time."""
        try:
            names = sorted(os.listdir(self._own / "task"), key=int)  # noqa: PTH208 - text is asked
        except (OSError, ValueError):
            self.counts["no process"] += 1
            return
        if len(names) > _MOST_THREADS:
            self.counts["threads not read"] += len(names) - _MOST_THREADS
        threads: dict[str, _Thread] = {}
        for name in names[:_MOST_THREADS]:
            said = _read(f"{self._own}/task/{name}/schedstat").split()
            if len(said) >= 2 and said[0].isdigit() and said[1].isdigit():
                threads[name] = _Thread(int(said[0]), int(said[1]))
        if not threads:  # a kernel without CONFIG_SCHED_INFO, or the process ended
            return
        before, self._threads = self._threads, threads
        if before:
            new = _Thread(0, 0)
            self._waited += max(
                0, *(now.waited - before.get(name, new).waited for name, now in threads.items())
            )
            busiest = max(threads, key=lambda name: threads[name].ran - before.get(name, new).ran)
            yield from self._clock(busiest)
        yield Measure(
            "kat.process.cpu.run_queue.time", self._waited / 1e9, {}, "sum", "s", 0, self._since_ns
        )

    def _clock(self, thread: str) -> Iterator[Measure]:
        """The clock of the CPU that the busiest thread ran on last."""
        said = _after_name(_read(self._own / "task" / thread / "stat"))
        if len(said) <= 36 or not said[36].isdigit():
            return
        cpu = int(said[36])
        khz = _read(self._cpus / f"cpu{cpu}/cpufreq/scaling_cur_freq").strip()
        hertz = int(khz) * 1_000 if khz.isdigit() else round(1e6 * self._mhz().get(cpu, 0.0))
        if hertz:
            yield Measure("kat.process.cpu.frequency", hertz, unit="Hz")

    def _mhz(self) -> dict[int, float]:
        found: dict[int, float] = {}
        cpu = -1
        for number, mhz in _MHZ.findall(_read(self._proc / "cpuinfo")):
            if number:
                cpu = int(number)
            else:
                found[cpu] = float(mhz)
        return found

    def _memory(self) -> Iterator[Measure]:
        said = _after_name(_read(self._own / "stat"))
        if len(said) > 9 and said[9].isdigit():
            major = {"system.paging.fault.type": "major"}
            yield Measure("process.paging.faults", int(said[9]), major, "sum", "{fault}")
        swapped = re.search(rb"^VmSwap:\s+(\d+) kB", _read(self._own / "status"), re.MULTILINE)
        if swapped:
            yield Measure("kat.process.memory.swapped", int(swapped[1]) * 1024, unit="By")

    def _cgroup(self) -> Iterator[Measure]:
        throttled = [
            nanoseconds
            for folder in self._cgroups.cpu
            if (nanoseconds := _throttled(_read(folder / "cpu.stat"))) is not None
        ]
        if throttled:  # the level that has the quota is the one that throttles
            seconds = max(throttled) / 1e9
            yield Measure("kat.process.cgroup.throttled.time", seconds, {}, "sum", "s")
        if self._cgroups.pressure is not None:
            yield from _pressures(self._cgroups.pressure, "{}.pressure", "kat.process.cgroup")


class HostReader:
    """Reads what the kernel says of the whole host.

    Args:
        root: where ``proc`` is.
    """

    def __init__(self, root: str | Path = "/") -> None:
        self._proc = Path(root) / "proc"
        self._ticks = os.sysconf("SC_CLK_TCK")

    def read(self) -> list[Measure]:
        """Returns what is known now; sums count since the host started."""
        stat = _read(self._proc / "stat")
        booted = re.search(rb"^btime (\d+)", stat, re.MULTILINE)
        start_ns = int(booted[1]) * 10**9 if booted else 0
        measures = [
            *self._cpu(stat),
            *self._swaps(),
            *_pressures(self._proc / "pressure", "{}", "kat.host"),
        ]
        return [m._replace(start_ns=start_ns) if m.kind == "sum" else m for m in measures]

    def _cpu(self, stat: bytes) -> Iterator[Measure]:
        total = re.search(rb"^cpu ((?: *\d+){8})", stat, re.MULTILINE)
        if total:
            steal = int(total[1].split()[7]) / self._ticks
            yield Measure("kat.host.cpu.steal.time", steal, {}, "sum", "s")
        running = re.search(rb"^procs_running (\d+)", stat, re.MULTILINE)
        if running:
            yield Measure("kat.host.cpu.run_queue", int(running[1]), unit="{thread}")

    def _swaps(self) -> Iterator[Measure]:
        found = re.findall(rb"^pswp(in|out) (\d+)", _read(self._proc / "vmstat"), re.MULTILINE)
        for way, pages in found:
            said = {"system.paging.direction": way.decode()}
            yield Measure("kat.host.paging.operations", int(pages), said, "sum", "{operation}")


class HostTeller:
    """Whether this process tells what concerns the whole host: one of an instance there does.

    Who holds the name of a socket in the network namespace's abstract space is the one; when it
    ends, the kernel gives the name back, and the next that asks has it.

    Args:
        instance: ``kat.instance.id``.
    """

    def __init__(self, instance: str) -> None:
        self._name = b"\0kat-otel/host/" + instance.encode("utf-8", "backslashreplace")[:80]
        self._socket: socket.socket | None = None

    def chosen(self) -> bool:
        """Returns whether it is this process, and takes the part if nobody has it."""
        if self._socket is None:
            try:
                held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            except OSError:  # a sandbox without such sockets: then nobody tells
                return False
            try:
                held.bind(self._name)
            except OSError:  # another has it
                held.close()
                return False
            self._socket = held
        return True

    def close(self) -> None:
        """Leaves the part to another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


# --- files ---------------------------------------------------------------------------------


class _Cgroups(NamedTuple):
    """Folders: with ``cpu.stat``, from the process's cgroup up; with ``cpu.pressure``."""

    cpu: tuple[Path, ...]
    pressure: Path | None


def _cgroups(root: Path, process: Path) -> _Cgroups:
    """Where the process's cgroups are, version 2 and 1, seen from inside a container or not."""
    mounts = root / "sys/fs/cgroup"
    levels: list[Path] = []
    pressure: Path | None = None
    for line in _read(process / "cgroup").decode("utf-8", "replace").splitlines()[:_DEEPEST]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            bases = (mounts, mounts / "unified")
        elif "cpu" in controllers.split(","):
            bases = (mounts / controllers, mounts / "cpu", mounts / "cpu,cpuacct")
        else:
            continue
        inner = [part for part in path.split("/") if part not in {"", ".", ".."}][:_DEEPEST]
        for base in bases:
            if not base.is_dir():
                continue
            chain = [base.joinpath(*inner[:depth]) for depth in range(len(inner), -1, -1)]
            levels += [folder for folder in chain if (folder / "cpu.stat").is_file()]
            if controllers == "" and pressure is None:
                # the root has no pressure of its own: the host's stands in /proc
                known = [folder for folder in chain if (folder / "cpu.pressure").is_file()]
                pressure = known[0] if known else None
    return _Cgroups(tuple(dict.fromkeys(levels)), pressure)


def _throttled(stat: bytes) -> int | None:
    """Nanoseconds in ``cpu.stat``: ``throttled_usec`` of version 2, ``throttled_time`` of 1."""
    found = re.search(rb"^throttled_(usec|time) (\d+)", stat, re.MULTILINE)
    if found is None:
        return None
    return int(found[2]) * (1_000 if found[1] == b"usec" else 1)


def _pressures(folder: Path, form: str, prefix: str) -> Iterator[Measure]:
    """Pressure stall totals (Documentation/accounting/psi.rst), µs, of CPU, memory and I/O."""
    for resource in ("cpu", "memory", "io"):
        for kind, total in _PRESSURE.findall(_read(folder / form.format(resource))):
            if (resource, kind) == ("cpu", b"full"):
                continue  # means nothing for a whole host, and little for a group
            said = {"kat.pressure.resource": resource, "kat.pressure.kind": kind.decode()}
            yield Measure(f"{prefix}.pressure.time", int(total) / 1e6, said, "sum", "s")


def _after_name(stat: bytes) -> list[bytes]:
    """Fields of ``/proc/PID/stat`` from the state on: the name before may contain anything."""
    return stat.rpartition(b") ")[2].split()


def _read(path: Path | str) -> bytes:
    """Returns a file's content; ``b""`` if this kernel has no such file or the thread ended."""
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC
        )  # a third of what a file object costs
    except OSError:
        return b""
    found = b""
    try:
        while len(found) < _MOST_BYTES and (more := os.read(descriptor, _CHUNK)):
            found += more  # the kernel may give a page at a time
    except OSError:  # the thread ended meanwhile
        return b""
    finally:
        os.close(descriptor)
    return found
