"""The room that owns Numba: how hot loops are compiled, for which CPU, and where the code is kept.

Nothing here is imported before something is decoded or judged: importing Numba takes a third
of a second. Compiled code is kept on disk, in the first of these that serves: what is already
warm beside the source (even if that cannot be written, as in a container image), the package's
``__pycache__``, the user's cache, a folder in the temporary directory. Where none can be
written, every start compiles anew, in memory, and says so.

Kept code is bound to a CPU model. A cache that is made in one place and used in another
(an image, a shared home) must not be: so it is compiled for a baseline, ``x86-64-v2`` (SSE4.2 and
POPCNT, any server since 2009) or the generic model of other architectures, and never for the
machine at hand. ``NUMBA_CPU_NAME`` still overrides it.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import hashlib
import inspect
import logging
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numba
from numba.core import caching, registry

__all__ = ["BASELINE", "INTERPRETED", "cache_folder", "inline", "njit"]

logger = logging.getLogger(__name__)

_numba: Any = numba
_Function = TypeVar("_Function", bound=Callable[..., Any])

INTERPRETED: bool = bool(_numba.config.DISABLE_JIT)
"""Whether ``NUMBA_DISABLE_JIT`` is set: the same source runs as Python, with checked memory."""

BASELINE = "x86-64-v2" if platform.machine() in {"x86_64", "AMD64"} else "generic"
"""The CPU model that compiled code is for."""


def _choose_cpu() -> None:
    made: dict[str, Any] = vars(registry.cpu_target)
    if "_toplevel_target_context" in made or os.environ.get("NUMBA_CPU_NAME"):
        return  # somebody compiled before us, or asked for a model: Numba has one per process
    _numba.config.CPU_NAME = BASELINE
    _numba.config.CPU_FEATURES = ""  # what the model implies, nothing of the host


_choose_cpu()


def njit(signature: str, *, uses: tuple[ModuleType, ...] = ()) -> Callable[[_Function], _Function]:
    """Compiles a function for one signature at once, without the GIL, from the cache if it can.

    Args:
        signature: Numba's notation, ``"int64(int64, int64)"``.
        uses: modules of :func:`inline` functions that it calls; if their source changes, the
            kept code is stale.
    """

    def decorate(function: _Function) -> _Function:
        if INTERPRETED:
            return function
        dispatcher: Any = _numba.njit(nogil=True)(function)
        cache = _cache_of(function, uses)
        if cache is not None:
            dispatcher._cache = cache
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def inline(function: _Function) -> _Function:
    """Marks a small function that becomes part of the compiled functions that call it."""
    return function if INTERPRETED else _numba.njit(forceinline=True)(function)


def cache_folder(source: str) -> Path | None:
    """Returns where compiled code of the file ``source`` is written; None if nowhere."""
    beside = Path(source).parent / "__pycache__"
    name = hashlib.sha256(str(Path(source).parent).encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    last = Path(tempfile.gettempdir()) / f"kat-otel-{_user()}"
    given = os.environ.get("NUMBA_CACHE_DIR")
    candidates = [Path(given) / name] if given else []
    candidates += [beside, Path(home) / "kat-otel" / name, last / name]
    return next((folder for folder in candidates if _is_ours_to_write(folder)), None)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run a uid without a name
        return str(os.getuid())


def _is_ours_to_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Kept code is loaded by pickle: a folder that others own or may write is not trusted.
        found = folder.stat()
        if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o002):
            return False
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@functools.cache
def _warn_uncached(folder: str) -> None:
    logger.warning(
        "compiled code of %s can be kept nowhere: every start compiles for some seconds; "
        "set NUMBA_CACHE_DIR to a writable folder, or run `python -m kat_otel.otlp.warm` at "
        "installation",
        folder,
    )


def _cache_of(function: Callable[..., Any], uses: tuple[ModuleType, ...]) -> Any:
    source = inspect.getfile(function)
    stamp = _stamp((source, *(str(module.__file__) for module in uses)))
    beside = Path(source).parent / "__pycache__"
    if not os.environ.get("NUMBA_CACHE_DIR") and beside.is_dir():
        # As trustworthy as the source beside it, whoever may write there.
        warm = _Cache(function, beside, stamp)
        if warm.holds_something():
            return warm
    folder = cache_folder(source)
    if folder is None:
        _warn_uncached(str(Path(source).parent))
        return None
    return _Cache(function, folder, stamp)


def _stamp(files: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for file in (*files, __file__):
        whole.update(Path(file).read_bytes())
    return whole.hexdigest()


class _Locator(caching._CacheLocator):  # pyright: ignore[reportPrivateUsage, reportUntypedBaseClass, reportUnknownMemberType, reportAttributeAccessIssue]
    """Numba's notion of where a function's code is kept."""

    def __init__(self, folder: Path, line: int, stamp: str) -> None:
        self._folder = folder
        self._line = line
        self._stamp = stamp

    def get_cache_path(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str(self._folder)

    def get_source_stamp(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._stamp

    def get_disambiguator(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str(self._line)


class _Cache(caching.FunctionCache):  # pyright: ignore[reportUntypedBaseClass]
    """Numba's cache of one function, in a folder that was chosen here."""

    def __init__(self, function: Callable[..., Any], folder: Path, stamp: str) -> None:
        self._folder = folder
        locator = _Locator(folder, function.__code__.co_firstlineno, stamp)
        chosen: Any = type("_Chosen", (), {"from_function": staticmethod(lambda *_: locator)})  # pyright: ignore[reportUnknownLambdaType]
        self._impl_class = type(
            "_Kept", (caching.CompileResultCacheImpl,), {"_locator_classes": [chosen]}
        )
        super().__init__(function)  # pyright: ignore[reportUnknownMemberType]

    def holds_something(self) -> bool:
        """Whether the folder has code of this very source."""
        file: Any = self._cache_file  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        try:
            return bool(file._load_index())
        except Exception:  # noqa: BLE001 - as below
            return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        except Exception as error:  # noqa: BLE001 - a file cut off by a power failure raises anything
            logger.warning("compiled code in %s is damaged, made anew: %r", self._folder, error)
            with contextlib.suppress(OSError):
                self.flush()  # pyright: ignore[reportUnknownMemberType]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # pyright: ignore[reportUnknownMemberType]
        except OSError as error:  # read-only, full: the code in memory serves this process
            logger.warning("compiled code was not kept in %s: %s", self._folder, error)
