"""The workers' processes: started together, watched, and never left behind."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from kat_otel.demo.scenario import Scenario
from kat_otel.demo.worker import READY
from kat_otel.errors import KatError

__all__ = ["Crew", "WorkerFailedError"]

_START_S = 30.0
_END_S = 2.0
_LEAD_NS = 300_000_000
_SAID = 2_000


class WorkerFailedError(KatError):
    """A simulated worker did not start, or ended early; the message has its last words."""


class Crew:
    """All workers of a scenario; a context manager that kills them on the way out.

    Args:
        scenario: what they simulate.
        port: of the OTLP receiver on loopback.
    """

    def __init__(self, scenario: Scenario, port: int) -> None:
        self._scenario = scenario
        self._port = port
        self._processes: list[subprocess.Popen[str]] = []
        self._errors: list[IO[str]] = []

    def __enter__(self) -> Self:
        # Eight processes on few cores: a thread pool in each would only fight the others.
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "GRPC_VERBOSITY": "NONE"}
        try:
            for rank in range(self._scenario.ranks):
                errors = tempfile.TemporaryFile("w+", encoding="utf-8")
                self._errors.append(errors)
                command = [sys.executable, "-m", "kat_otel.demo.worker"]
                command += [self._scenario.to_text(), str(rank), str(self._port)]
                self._processes.append(
                    subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                        env=environment,
                    )
                )
        except BaseException:
            self._end()
            raise
        return self

    def start(self) -> int:
        """Waits until all workers are ready and lets them begin together.

        Returns:
            Unix ns of the first step.

        Raises:
            WorkerFailedError: one did not get ready in time.
        """
        deadline = time.monotonic() + _START_S
        with selectors.DefaultSelector() as waiting:
            for rank, (_, stdout) in enumerate(map(_pipes, self._processes)):
                waiting.register(stdout, selectors.EVENT_READ, rank)
            while waiting.get_map():
                events = waiting.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    raise WorkerFailedError(f"a worker was not ready within {_START_S:.0f} s")
                for key, _ in events:
                    rank = int(key.data)
                    if _pipes(self._processes[rank])[1].readline().strip() != READY:
                        raise self._failure(rank)
                    waiting.unregister(key.fileobj)
        begin_ns = time.time_ns() + _LEAD_NS
        for rank, (stdin, _) in enumerate(map(_pipes, self._processes)):
            try:
                stdin.write(f"{begin_ns}\n")
                stdin.flush()
            except BrokenPipeError:
                raise self._failure(rank) from None
        return begin_ns

    def check(self) -> None:
        """Raises WorkerFailedError if a worker has ended with an error."""
        for rank, process in enumerate(self._processes):
            if process.poll() not in (None, 0):
                raise self._failure(rank)

    def _failure(self, rank: int) -> WorkerFailedError:
        self._errors[rank].seek(0)
        said = self._errors[rank].read()[-_SAID:].strip() or "it said nothing"
        return WorkerFailedError(f"worker {rank} ended early: {said}")

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        deadline = time.monotonic() + _END_S
        for process in self._processes:
            process.wait(max(0.1, deadline - time.monotonic()))
            for stream in _pipes(process):
                with suppress(BrokenPipeError):  # what was meant for it no longer matters
                    stream.close()
        for errors in self._errors:
            errors.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """Returns standard input and output of a worker, both of which are pipes."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the worker was started without pipes")
    return process.stdin, process.stdout
