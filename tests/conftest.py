"""What every test may ask for: the real traces, a free port, and honest skips.

A skip says what is missing and the command that enables it, as ``what: command``. The run
ends with a list of them; where ``KAT_REQUIRE_ALL=1`` is set (CI), a skip is a failure.
"""

from __future__ import annotations

import os
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from kat_otel.spans import SpanTable

REPOSITORY = Path(__file__).resolve().parent.parent
REASON = re.compile(r"[^:]+: \S.*", re.DOTALL)


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of real GPU traces; never part of the repository."""
    folder = Path(os.environ.get("KAT_TRACES") or REPOSITORY.parent / "shared" / "traces")
    if not (folder / "dlrm_8rank").is_dir():
        pytest.skip("real traces not found: KAT_TRACES=/path/to/traces make test")
    return folder


def _read(folder: Path) -> SpanTable:
    from kat_otel.readers import read

    return read([folder]).table


@pytest.fixture(scope="session")
def dlrm(traces: Path) -> SpanTable:
    """Eight ranks of one training step, Kineto, microseconds; rank 7 is late."""
    return _read(traces / "dlrm_8rank")


@pytest.fixture
def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- skips ---------------------------------------------------------------------------------


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _judge_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = _reason(report)
    if not REASON.fullmatch(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped without a remedy ({reason}): write 'what is missing: command'"
    elif os.environ.get("KAT_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"KAT_REQUIRE_ALL=1, but skipped, {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report: pytest.TestReport = yield
    _judge_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report: pytest.CollectReport = yield
    _judge_skip(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists what did not run, with the command that enables it."""
    missing: defaultdict[str, int] = defaultdict(int)
    for report in terminalreporter.stats.get("skipped", []):
        missing[_reason(report)] += 1
    for item in terminalreporter.stats.get("deselected", []):
        if item.get_closest_marker("torch"):
            missing["tests with PyTorch: make test-torch"] += 1
        elif item.get_closest_marker("train"):
            missing["tests that train a model: make test-train"] += 1
        elif item.get_closest_marker("slow"):
            missing["slow tests: make test-slow"] += 1
    if not missing:
        return
    terminalreporter.section("not run, and how to run it")
    for reason, count in sorted(missing.items()):
        what, _, command = reason.partition(": ")
        terminalreporter.line(f"{count:4d}  {what}\n        -> {command}")


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory) -> Iterator[Path]:
    """Keeps what `kat process` writes by default out of the home of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("state")
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before
