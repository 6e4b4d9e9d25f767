"""The questions to the hardware, one function each; what they find are rows of a table."""

from __future__ import annotations

import importlib
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from bench.gpu.rehearsal import standin_cupti
from bench.gpu.workload import Counted, Eager, Graphed, Rehearsed, Workload, timed
from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from kat_otel.ttad import robust
from kat_otel.ttad.backend import run

__all__ = ["CHECKS", "Check", "Row"]

ROOT: Final = Path(__file__).resolve().parents[2]
ROUNDS: Final = 3
MEASURE_S: Final = 4.0
TARGET: Final = 0.02
"""Overhead up to which tracing graph nodes may become the default."""

Verdict = Literal["ok", "FAIL", "figure", "skipped"]


@dataclass(frozen=True, slots=False)
class Row:
    """One line of the table: a check that passed or failed, or a figure."""

    check: str
    what: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """A question, and who answers it within how many seconds."""

    question: str
    run: Callable[[bool], list[Row]]
    limit_s: float = 60.0


class Reader:
    """Takes all that a capture has to say."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._source = RegionSource(capture.fd)
        self.batches: list[dict[str, Any]] = []
        self.last = Batch()

    def drain(self, seconds: float = 1.0) -> None:
        """Takes what has come, until nothing comes for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._capture.flush()
            self.last = self._source.take(0.2)
            kept = {
                name: getattr(self.last, name).copy()
                for name in ("kernels", "copies", "sets", "graphs", "apis")
                if len(getattr(self.last, name))
            }
            if kept:
                self.batches.append(kept)
                end = time.monotonic() + seconds

    def all(self, name: str) -> Any:
        found = [batch[name] for batch in self.batches if name in batch]
        return np.concatenate(found) if found else np.empty(0)


def _settings(*, rehearse: bool, **given: Any) -> Settings:
    settings = replace(Settings.read(os.environ), **given)
    return replace(settings, cupti=str(standin_cupti().path)) if rehearse else settings


def _counted(*, rehearse: bool, kernels: int = 1_000) -> Workload:
    return Rehearsed(standin_cupti(), kernels) if rehearse else Counted(kernels)


def machine(rehearse: bool) -> list[Row]:
    """Driver, CUPTI and which libcupti; the table that its records are read by."""
    rows: list[Row] = []
    if not rehearse:
        import torch  # noqa: PLC0415

        device = torch.cuda.get_device_properties(0)
        rows.append(Row("machine", "GPU", "figure", f"{device.name}, torch {torch.__version__}"))
        torch.zeros(1, device="cuda")
    capture = Capture.start(_settings(rehearse=rehearse))
    library = capture.library
    assert library is not None
    name = Path(library.path).name
    rows.append(Row("machine", "CUPTI", "ok", f"{capture.version}, {name}, {library.where}"))
    rows += [Row("machine", "note", "figure", note) for note in capture.notes]
    capture.stop()
    return rows


def records(rehearse: bool) -> list[Row]:
    """Every kernel that was launched is there once, with a launch and a time that make sense."""
    workload = _counted(rehearse=rehearse)
    capture = Capture.start(_settings(rehearse=rehearse))
    reader = Reader(capture)
    workload.step()
    reader.drain()
    reader.batches.clear()
    steps, began = 20, time.time_ns()
    for _ in range(steps):
        workload.step()
    ended = time.time_ns()
    reader.drain()
    loss = reader.last.loss
    capture.stop()
    kernels, apis = reader.all("kernels"), reader.all("apis")
    wanted = steps * workload.kernels
    launched = np.isin(kernels["correlation"], apis["correlation"]) if len(apis) else np.zeros(0)
    inside = (kernels["start"] >= began) & (kernels["end"] <= ended + 1_000_000_000 * rehearse)
    length = kernels["end"] - kernels["start"]
    return [
        _judged("records", "kernels", len(kernels) == wanted, f"{len(kernels):,} of {wanted:,}"),
        _judged("records", "launches", bool(launched.all()), f"{int(launched.sum()):,} joined"),
        _judged("records", "Unix times", bool(inside.all()), f"{int((~inside).sum())} outside"),
        _judged(
            "records",
            "durations",
            bool((length > 0).all()),
            f"median {np.median(length) / 1e3:.1f} µs" if len(length) else "none",
        ),
        _judged(
            "records",
            "loss",
            loss.records + loss.buffers + loss.malformed == 0,
            f"{loss.records} records, {loss.buffers} buffers, {loss.malformed} malformed",
        ),
    ]


def graphs(rehearse: bool) -> list[Row]:
    """A CUDA graph's launch is one record, or all its nodes are there, as the setting says."""
    if rehearse:
        return [Row("graphs", "CUDA graphs", "skipped", "the rehearsal has no graphs")]
    rows: list[Row] = []
    for level in ("graph", "node"):
        said = _inside(f"_graph_records('{level}')")
        rows.append(said if isinstance(said, Row) else Row("graphs", level, "FAIL", said))
    return rows


def _graph_records(level: Any) -> Row:
    capture = Capture.start(_settings(rehearse=False, graphs=level))  # before the first capture
    workload = Graphed()
    reader = Reader(capture)
    workload.step()
    reader.drain()
    reader.batches.clear()
    steps = 50
    for _ in range(steps):
        workload.step()
    reader.drain()
    capture.stop()
    launches, kernels = reader.all("graphs"), reader.all("kernels")
    if level == "graph":
        good = len(launches) == steps
        return _judged("graphs", "one record a launch", good, f"{len(launches)} of {steps}")
    a_step, rest = divmod(len(kernels), steps)
    nodes = int((kernels["graph_node"] != 0).sum()) if len(kernels) else 0
    good = a_step > 0 and rest == 0 and nodes == len(kernels)
    return _judged("graphs", "every node", good, f"{a_step} kernels a launch, {nodes:,} with node")


def overhead(rehearse: bool) -> list[Row]:
    """What capture costs a step: processes without and with it, turn by turn."""
    if rehearse:
        return [Row("overhead", "a step", "skipped", "the rehearsal has no steps to slow down")]
    rows: list[Row] = []
    for name, kind, level in (
        ("eager", "Eager", "graph"),
        ("CUDA graph, a record a launch", "Graphed", "graph"),
        ("CUDA graph, node by node", "Graphed", "node"),
    ):
        off: list[float] = []
        on: list[float] = []
        for _ in range(ROUNDS):
            off.append(float(_inside(f"_median('{kind}', None)")))
            on.append(float(_inside(f"_median('{kind}', '{level}')")))
        base, with_it = statistics.median(off), statistics.median(on)
        share = with_it / base - 1
        text = f"{1e3 * base:.3f} ms without, {1e3 * with_it:.3f} ms with: {share:+.2%}"
        verdict: Verdict = "figure" if level == "node" else _verdict(share <= TARGET)
        rows.append(Row("overhead", name, verdict, text))
    return rows


def _median(kind: str, level: Any) -> float:
    capture = Capture.start(_settings(rehearse=False, graphs=level)) if level else None
    workload = {"Eager": Eager, "Graphed": Graphed}[kind]()
    reader = Reader(capture) if capture else None
    median, _ = timed(workload, MEASURE_S)
    if reader and capture:
        reader.drain(0.1)
        capture.stop()
    return median


def storm(rehearse: bool) -> list[Row]:
    """Nobody reads: the server runs on, and what is lost is counted."""
    workload = _counted(rehearse=rehearse, kernels=5_000)
    capture = Capture.start(_settings(rehearse=rehearse, buffer_mib=2))
    free, _ = timed(workload, 2.0, warm=0.5)
    full, _ = timed(workload, 2.0, warm=0.5)
    loss = capture.loss()
    capture.stop()
    lost = loss.records
    return [
        _judged("storm", "loss is counted", lost > 0, f"{lost:,} records"),
        _judged(
            "storm", "a step", full < 1.2 * free, f"{1e3 * free:.2f}, then {1e3 * full:.2f} ms"
        ),
    ]


def busy(rehearse: bool) -> list[Row]:
    """Another tool has CUPTI: capture says so and leaves nothing behind."""
    if rehearse:
        return [Row("busy", "torch.profiler", "skipped", "the rehearsal has no torch")]
    import torch  # noqa: PLC0415

    workload = Counted()
    rows: list[Row] = []
    with torch.profiler.profile() as profiler:
        workload.step()
        try:
            Capture.start(_settings(rehearse=False)).stop()
            rows.append(Row("busy", "beside torch.profiler", "figure", "CUPTI took both"))
        except CaptureError as error:
            rows.append(Row("busy", "beside torch.profiler", "ok", str(error)))
        workload.step()
    seen = sum(e.count for e in profiler.key_averages() if e.device_time_total > 0)
    rows.append(_judged("busy", "torch.profiler goes on", seen >= 1_000, f"{seen:,} events"))
    return rows


def clock(rehearse: bool) -> list[Row]:
    """CUPTI's clock beside the system's, and kernel times beside CUDA's own events."""
    if rehearse:
        return [Row("clock", "durations", "skipped", "the rehearsal has no events")]
    import torch  # noqa: PLC0415

    capture = Capture.start(_settings(rehearse=False))
    reader = Reader(capture)
    a = torch.randn(4_096, 4_096, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    a @ a
    reader.drain()
    reader.batches.clear()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(50):
        a @ a
    last.record()
    torch.cuda.synchronize()
    reader.drain()
    capture.stop()
    kernels = reader.all("kernels")
    ours = (int(kernels["end"].max()) - int(kernels["start"].min())) / 1e6
    theirs = first.elapsed_time(last)
    share = ours / theirs - 1
    return [
        _judged("clock", "50 products", abs(share) < 0.02, f"{ours:.3f} ms, events {theirs:.3f} ms")
    ]


def hardware(rehearse: bool) -> list[Row]:
    """What NVML says of this GPU, and what it does not support."""
    if rehearse:
        return [Row("hardware", "NVML", "skipped", "the rehearsal has no NVML")]
    nvml: Any = importlib.import_module("kat_otel.instrumentation.hardware.nvml")
    return [Row("hardware", name, "figure", text) for name, text in nvml.survey()]


def scoring(rehearse: bool) -> list[Row]:
    """TTAD's statistics on CuPy: the same as NumPy's, and how fast, both copies included."""
    if importlib.util.find_spec("cupy") is None:
        return [Row("scoring", "CuPy", "skipped", "not installed: pip install 'kat-otel[cuda13]'")]
    numpy_xp: Any = importlib.import_module("array_api_compat.numpy")
    cupy_xp: Any = importlib.import_module("array_api_compat.cupy")
    if rehearse or not importlib.import_module("cupy").is_available():
        return [Row("scoring", "CuPy", "skipped", "no device")]
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, 5e3, (20_000, 64))
    mask = rng.random(values.shape) < 0.98
    group = rng.integers(0, 500, len(values))
    rows: list[Row] = []
    for name, inputs in (
        ("leave_one_out_median", (values, mask)),
        ("pooled_scale", (values - values.mean(), mask, group, 500)),
    ):
        function = getattr(robust, name)
        expected, host = _best(function, inputs, numpy_xp)
        found, device = _best(function, inputs, cupy_xp)
        same = all(np.allclose(a, b) for a, b in zip(expected, found, strict=True))
        text = f"{1e3 * device:.1f} ms, NumPy {1e3 * host:.1f} ms, {values.size:,} values"
        rows.append(_judged("scoring", name, same, text))
    return rows


def _best(function: Any, inputs: Any, xp: Any) -> tuple[Any, float]:
    times: list[float] = []
    result: Any = None
    for _ in range(5):
        began = time.perf_counter()
        result = run(function, *inputs, xp=xp)
        times.append(time.perf_counter() - began)
    return result, min(times)


def _judged(check: str, what: str, good: bool, text: str) -> Row:
    return Row(check, what, _verdict(good), text)


def _verdict(good: bool) -> Verdict:
    return "ok" if good else "FAIL"


def _inside(call: str) -> Any:
    """Runs a function of this file in a new process: CUPTI and graphs keep what they were told."""
    code = f"from bench.gpu import checks; print('=>', repr(checks.{call}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith("=> "):
            return eval(line[3:], {"Row": Row})
    return f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"


CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "machine": Check("which GPU, driver and CUPTI?", machine),
        "records": Check("is every kernel there, with its launch?", records),
        "clock": Check("do times agree with CUDA's own?", clock),
        "graphs": Check("are graphs seen as the setting says?", graphs, 90),
        "storm": Check("does a reader that stands still harm the server?", storm),
        "busy": Check("what if another tool has CUPTI?", busy),
        "overhead": Check("what does capture cost a step?", overhead, 300),
        "hardware": Check("what does NVML tell?", hardware),
        "scoring": Check("does TTAD say the same on the GPU, and how fast?", scoring, 120),
    }
)
