"""Where judges are kept over restarts and moves: a directory with one file an instance.

The directory may be shared by all processors. Whoever asks for an instance's state owns it from
then on, under a higher epoch: the collector has moved the instance there. The owner before finds
the other's mark when it saves next, and writes that instance no more, so that an old view never
replaces a newer one, until the instance comes back to it and it asks again. Check and replacement
happen under one lock of the directory (``flock``); on a file system without locks two writers in
the same instant may pass.
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kat_otel.errors import ConfigError
from kat_otel.processor import state_file
from kat_otel.processor.shared_folder import locked
from kat_otel.processor.state_file import Damaged, Kept

__all__ = ["StateStore", "owner_of"]

_CLEAN_EVERY_S: Final = 3600.0
_DRAFT_AGE_S: Final = 3600.0

logger = logging.getLogger(__name__)


def owner_of(directory: Path) -> bytes | None:
    """Returns 16 bytes that stay with a log's directory, so that a processor knows its own states.

    None if they cannot be kept; every life is another owner then.
    """
    path = directory / "owner"
    try:
        if not path.exists():
            path.write_bytes(secrets.token_bytes(16))
        found = path.read_bytes()
    except OSError as error:
        logger.warning("%s: the owner of states cannot be kept: %s", path, error)
        return None
    return found if len(found) == 16 else None


def _ignore(_: str) -> None:
    pass


class StateStore:
    """Keeps the states of instances. Used by one thread.

    Args:
        directory: where; made if it is not there. None keeps nothing.
        max_instances: files at most; beyond it the longest unchanged go.
        max_age: seconds after which the state of an instance that nobody judges goes.
        mark: counts what happened, by a short name.
        owner: 16 bytes by which the processor knows over restarts what is its own; None: another
            owner each time.

    Raises:
        ConfigError: the directory cannot be made or written to.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        max_instances: int = 1_000,
        max_age: float = 14 * 86_400.0,
        mark: Callable[[str], None] = _ignore,
        owner: bytes | None = None,
    ) -> None:
        self._directory = directory
        self._max_instances = max_instances
        self._max_age = max_age
        self._mark = mark
        self._owner = owner or secrets.token_bytes(16)
        # Epoch of the instances that are ours, None of those that were; the latest used last.
        self._epochs: OrderedDict[str, int | None] = OrderedDict()
        self._cleaned = time.monotonic()
        if directory is None:
            return
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(directory):
                self._clean(directory)
        except OSError as error:
            raise ConfigError(
                f"state.directory: {directory}: {error.strerror or error} — give a directory that "
                "this user may write to"
            ) from error

    def load(self, instance: str, *, back: bool = False) -> bytes | None:
        """Takes an instance over and returns what was saved last, None if nothing is usable.

        A file that is damaged or of another version is renamed to ``*.bad``, with a log line.

        Args:
            instance: its name.
            back: it is wanted for steps that a restarted processor found in its log. What another
                has taken over since stays that one's: it is read, and not written here.
        """
        if self._directory is None:
            return None
        try:
            if back and self._is_others(instance):
                return self._borrow(self._directory, instance)
            return self._take_over(self._directory, instance) or None
        except OSError as error:
            self._mark("states unreadable")
            logger.warning("instance %s: its state cannot be read: %s", instance, error)
            return None

    def save(self, instance: str, data: bytes) -> None:
        """Keeps ``data``, on disk when this returns, unless the instance is another's by now.

        Raises:
            OSError: the disk does not take it, or it is too large; what was kept before stays.
        """
        if self._directory is None or not self.owns(instance):
            return
        if instance not in self._epochs:
            self._take_over(self._directory, instance)
        path = state_file.path_of(self._directory, instance)
        with locked(self._directory):
            epoch = self._epochs[instance] or 0
            try:
                found = state_file.read_mark(path)
            except Damaged as error:
                self._set_aside(path, instance, error)
                found = None
            if found is not None and found.owner != self._owner and found.epoch >= epoch:
                self._lose(instance)
                return
            try:
                state_file.replace(path, instance, Kept(epoch, self._owner, data))
            except ValueError as error:
                raise OSError(errno.EFBIG, f"state too large: {error}", str(path)) from error
            self._epochs.move_to_end(instance)
            if time.monotonic() - self._cleaned >= _CLEAN_EVERY_S:
                self._clean(self._directory)

    def owns(self, instance: str) -> bool:
        """Returns whether nobody else is known to have taken the instance over."""
        return self._epochs.get(instance, 0) is not None

    def is_elsewhere(self, instance: str) -> bool:
        """Returns whether another processor has taken the instance over since it was loaded.

        Looks at the file's head only, and without the lock: it is replaced whole.
        """
        if self._directory is None:
            return False
        return not self.owns(instance) or self._is_others(instance)

    def _is_others(self, instance: str) -> bool:
        if self._directory is None:
            return False
        try:
            found = state_file.read_mark(state_file.path_of(self._directory, instance))
        except (Damaged, OSError):
            return False  # what is in memory is better; the next save says what is wrong
        return found is not None and found.owner != self._owner

    def _borrow(self, directory: Path, instance: str) -> bytes | None:
        try:
            kept = state_file.read(state_file.path_of(directory, instance), instance)
        except Damaged:  # whose it is will set it aside
            return None
        self._epochs[instance] = None
        return kept.data or None if kept is not None else None

    def _take_over(self, directory: Path, instance: str) -> bytes:
        path = state_file.path_of(directory, instance)
        with locked(directory):
            try:
                kept = state_file.read(path, instance)
            except Damaged as error:
                self._set_aside(path, instance, error)
                kept = None
            data, epoch = (kept.data, kept.epoch) if kept is not None else (b"", 0)
            # By the clock, so that it also grows over a file that was set aside or removed.
            epoch = max(time.time_ns(), epoch + 1)
            try:
                state_file.replace(path, instance, Kept(epoch, self._owner, data))
            except (OSError, ValueError) as error:
                # A full disk, a name too long for the file: what was read is good all the same.
                self._mark("states not written")
                logger.warning("instance %s: cannot be marked as ours: %s", instance[:80], error)
        self._epochs[instance] = epoch
        self._epochs.move_to_end(instance)
        while len(self._epochs) > self._max_instances:
            self._epochs.popitem(last=False)
        return data

    def _lose(self, instance: str) -> None:
        self._epochs[instance] = None
        self._mark("states taken over")
        logger.warning(
            "instance %s: another processor has taken it over; its state is not written here any "
            "more. If both still get spans of it, route by kat.instance.id",
            instance,
        )

    def _set_aside(self, path: Path, instance: str, why: Damaged) -> None:
        bad = path.with_suffix(".bad")
        path.replace(bad)
        self._mark("states set aside")
        logger.warning("instance %s: its state is set aside as %s (%s)", instance, bad, why)

    def _clean(self, directory: Path) -> None:
        """Removes what is old, what was left half-written, and the oldest beyond the bound."""
        self._cleaned = time.monotonic()
        now = time.time()
        kept: list[tuple[float, Path]] = []
        for path in directory.iterdir():
            if path.suffix not in {".state", ".bad", ".draft"}:
                continue
            changed = path.stat().st_mtime
            age = _DRAFT_AGE_S if path.suffix == ".draft" else self._max_age
            if now - changed > age:
                path.unlink(missing_ok=True)
            elif path.suffix != ".draft":
                kept.append((changed, path))
        for _, path in sorted(kept)[: max(0, len(kept) - self._max_instances)]:
            path.unlink(missing_ok=True)
