"""The worker's side of the helper process: starts it, and starts it again if it dies.

Nothing here may disturb the server: a helper that cannot be started is a log line.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from kat_otel.instrumentation.settings import Settings

__all__ = ["GUARD", "Helper", "environment_of", "start_helper"]

logger: Final = logging.getLogger(__name__)

GUARD: Final = "KAT_HELPER"
"""Set in the helper's environment: nothing instruments a process that has it."""

_PACKAGES: Final = Path(__file__).parents[3]
_COMMAND: Final = (sys.executable, "-P", "-m", "kat_otel.instrumentation.sending.helper")
"""``-P``: the server's working directory must not stand before the installed packages."""

_DROPPED: Final = (
    "CUDA_INJECTION64_PATH",
    "LD_PRELOAD",
    "NVTX_INJECTION32_PATH",
    "NVTX_INJECTION64_PATH",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
)
_AUTO_INSTRUMENTATION: Final = "opentelemetry/instrumentation/auto_instrumentation"
_ONE_THREAD: Final = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PAUSES_S: Final = (1.0, 5.0, 25.0)
_KILL_AFTER_S: Final = 3.0


def environment_of(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the helper's environment: the worker's, without what would load things into it.

    Args:
        settings: as the worker has them, whatever its environment says.
        environment: of the worker.
    """
    kept = {key: value for key, value in environment.items() if key not in _DROPPED}
    kept[GUARD] = "1"
    kept.update(dict.fromkeys(_ONE_THREAD, "1"))
    for one in fields(Settings):
        value = getattr(settings, one.name)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        kept[str(one.metadata["variable"])] = text
    # opentelemetry-instrument works by a sitecustomize on this path; ours must be found.
    paths = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    paths = [p for p in paths if not Path(p).as_posix().endswith(_AUTO_INSTRUMENTATION)]
    kept["PYTHONPATH"] = os.pathsep.join([*paths, str(_PACKAGES)])
    return kept


class Helper:
    """A running helper process, watched by a thread.

    Args:
        fd: the shared region, inherited by the process.
        settings: of the worker.
        command: what to run; ``--fd`` and ``--parent`` are added.
        pauses: seconds before each new start after a death; as many as there may be.
        unheard: called when it has died too often, from the watching thread.
    """

    def __init__(
        self,
        fd: int,
        settings: Settings,
        command: Sequence[str] = _COMMAND,
        pauses: Sequence[float] = _PAUSES_S,
        unheard: Callable[[], None] | None = None,
    ) -> None:
        self._fd = fd
        self._settings = settings
        self._command = command
        self._pauses = pauses
        self._unheard = unheard
        self._closing = threading.Event()
        self._process = self._start()
        self.gave_up = threading.Event()
        """Set when the process has died too often: nobody takes what capture records."""
        self._thread = threading.Thread(target=self._watch, name="kat-helper", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Process id of the helper."""
        return self._process.pid

    def close(self, timeout: float = _KILL_AFTER_S) -> None:
        """Lets the helper drain, and ends it if that takes too long.

        It sees the end of the region by itself; whoever closes that does so before.
        """
        self._closing.set()
        process = self._process
        try:
            process.terminate()  # it drains, and ends
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        except OSError as error:
            logger.warning("the helper process %d could not be ended: %s", process.pid, error)
        self._thread.join(1.0)

    def _start(self) -> subprocess.Popen[bytes]:
        """Starts the process.

        Raises:
            OSError: it cannot be started.
        """
        arguments = [*self._command, "--fd", str(self._fd), "--parent", str(os.getpid())]
        return subprocess.Popen(  # noqa: S603 - our own module, in the interpreter that runs
            arguments,
            pass_fds=(self._fd,),
            env=environment_of(self._settings, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server's output is not ours to write to
            start_new_session=True,  # Ctrl-C is for the server: the helper drains after it
        )

    def _watch(self) -> None:
        for pause in (*self._pauses, None):
            code = self._process.wait()
            if self._closing.is_set():
                return
            if pause is None:
                break
            logger.warning("the helper process ended (%d): started again in %g s", code, pause)
            if self._closing.wait(pause):
                return
            try:
                self._process = self._start()
            except OSError as error:
                logger.warning("the helper process cannot be started: %s", error)
                break
        logger.error("the helper process ended too often: capture is off in this process")
        self.gave_up.set()
        if self._unheard is not None:
            self._unheard()


def start_helper(
    fd: int, settings: Settings, unheard: Callable[[], None] | None = None
) -> Helper | None:
    """Starts the helper process for the shared region ``fd``; None if that is not possible.

    Args:
        fd: of the capture.
        settings: of the worker.
        unheard: called if nobody reads the region any more, however often the helper is started.
    """
    if not sys.executable:
        logger.warning("no helper process: this program does not say where its Python is")
        return None
    try:
        return Helper(fd, settings, unheard=unheard)
    except OSError as error:
        logger.warning("no helper process: %s", error)
        return None
