"""The helper process: makes and sends spans beside the inference server, on a core of its own.

``python -m kat_otel.instrumentation.sending.helper --fd N --parent PID``. It lives as long as
the worker that started it, drains when that is gone, and is not part of its terminal's process
group, so that Ctrl-C of the server lets it drain. SIGUSR1 sends what the flight recorder holds;
SIGUSR2 switches capture off, or on again.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kat_otel.instrumentation.capture.records import Batch, Source
from kat_otel.instrumentation.identity.identify import Identifier
from kat_otel.instrumentation.identity.ranks import from_environment
from kat_otel.instrumentation.sending.wiring import Sending
from kat_otel.instrumentation.settings import Settings

__all__ = ["ENGINE", "OrphanSource", "main", "run"]

logger: Final = logging.getLogger(__name__)

ENGINE: Final = "native"
"""What a server is called that has no Python and says no name of its own."""

_NICENESS: Final = 5
_STDERR: Final = 2
_DESCRIPTORS: Final = Path("/proc/self/fd")


class OrphanSource:
    """A source that ends when the parent process is gone, whatever the region says.

    Args:
        source: where batches come from.
        parent: process id of the worker; 0 if it is not watched.
    """

    def __init__(self, source: Source, parent: int) -> None:
        self._source = source
        self._parent = parent

    def take(self, timeout: float) -> Batch:
        """Returns the next batch; the first empty one after the parent's end is the last."""
        gone = self._parent != 0 and os.getppid() != self._parent
        batch = self._source.take(0.0 if gone else timeout)
        if gone and not batch.ended and not batch.some:
            batch = replace(batch, ended=True)
        return batch

    def order(self, mode: str) -> None:
        """Passes the order on."""
        self._source.order(mode)

    def close(self) -> None:
        """Closes the source."""
        self._source.close()


def main(arguments: Sequence[str]) -> int:
    """Runs the helper process until the worker is gone; returns the exit code."""
    parser = argparse.ArgumentParser("kat_otel.instrumentation.sending.helper")
    parser.add_argument("--fd", type=int, required=True, help="the shared region")
    parser.add_argument("--parent", type=int, default=0, help="the worker; 0 if it is a C++ server")
    said = parser.parse_args(arguments)
    if not said.parent:
        _close_others(said.fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s kat-otel[{said.parent}] %(levelname)s %(message)s",
    )
    with suppress(OSError):  # not allowed everywhere; the helper works without
        os.nice(_NICENESS)
    settings = Settings.read(os.environ)
    # By name: what a test or a debugger puts in place of them is taken.
    region: Any = importlib.import_module("kat_otel.instrumentation.capture.region")
    source = OrphanSource(region.RegionSource(said.fd), said.parent)
    pid = said.parent or os.getppid()
    sending = Sending(settings, source, pid=pid, environment=os.environ)
    if not said.parent:  # started by the native library: nobody else knows who the worker is
        Identifier(settings, os.environ, sending.introduce, pid).start(
            lambda: replace(from_environment(os.environ), engine=ENGINE)
        )
    sender = sending.sender
    asked = {
        signal.SIGTERM: sender.end,
        signal.SIGUSR1: sender.send_recorded,
        signal.SIGUSR2: sender.toggle,
    }
    for number in asked:
        signal.signal(number, lambda at, _: asked[signal.Signals(at)]())
    sending.run()
    return 0


def run() -> int:
    """The console script ``kat-otel-helper``, which native/injection.c starts; the exit code."""
    return main(sys.argv[1:])


def _close_others(fd: int) -> None:
    """Closes what a C++ server left open for us: its sockets must not outlive it."""
    for one in [int(path.name) for path in _DESCRIPTORS.iterdir()]:
        if one > _STDERR and one != fd:
            with suppress(OSError):  # the one that listed them is closed already
                os.close(one)


if __name__ == "__main__":
    sys.exit(run())
