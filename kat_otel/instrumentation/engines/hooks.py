"""Hooks as rows of a table: what of an engine is wrapped, and what we use of it.

An engine's module is never imported by us: its functions are wrapped when the engine imports it.
The rows are what the contract tests check against the engines' real packages.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import wrapt
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from kat_otel.instrumentation.guard import Guard

__all__ = ["After", "Before", "Call", "Hook", "HookSet"]

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a hooked function.

    Attributes:
        instance: what it is a method of; None for a static one.
        arguments: positional, without ``self``.
        named: by name.
    """

    instance: Any
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]

    def argument(self, position: int, name: str) -> Any:
        """Returns an argument wherever it was given; None if it was not."""
        if name in self.named:
            return self.named[name]
        return self.arguments[position] if position < len(self.arguments) else None


Before = Callable[[Call], Any]
"""Runs before the engine's function; what it returns is handed to ``after``."""

After = Callable[[Call, Any, Any, bool], None]
"""Runs after it: the call, what ``before`` returned, the result, and whether it raised."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of an engine that we stand around.

    Attributes:
        module: where it is defined.
        name: ``Class.method``.
        uses: parameters that we read, in the order and from the place where they stand.
        before, after: our part; either may be missing.
        since: first version of the engine that has it; empty: the oldest that is supported.
        until: first version that has it no more; empty: none yet.
        counts: it counts steps, so it also runs where instrumentation is suppressed.
    """

    module: str
    name: str
    uses: tuple[str, ...] = ()
    before: Before | None = None
    after: After | None = None
    since: str = ""
    until: str = ""
    counts: bool = False

    @property
    def where(self) -> str:
        """The whole name."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class _Worn:
    owner: Any
    attribute: str
    original: Any
    wrapper: Any
    guard: Guard


class HookSet:
    """Puts hooks on and takes them off, each function as it was before."""

    def __init__(self) -> None:
        self._wanted: dict[str, list[Hook]] = {}
        self._watched: set[str] = set()
        self._worn: dict[str, _Worn] = {}

    def put_on(self, hooks: Sequence[Hook]) -> None:
        """Wraps functions of modules that are there, the others when they are imported."""
        for hook in hooks:
            self._wanted.setdefault(hook.module, []).append(hook)
        for module in dict.fromkeys(hook.module for hook in hooks):
            if module in self._watched:
                if module in sys.modules:  # its import was seen before hooks were put on anew
                    self._imported(sys.modules[module])
                continue
            self._watched.add(module)
            wrapt.register_post_import_hook(self._imported, module)  # at once if it is there

    def take_off(self) -> None:
        """Gives every function back; modules imported later stay as they are."""
        self._wanted.clear()
        for where in list(self._worn):
            self._remove(where)

    @property
    def worn(self) -> frozenset[str]:
        """Whole names of what is wrapped now."""
        return frozenset(self._worn)

    def _imported(self, module: Any) -> None:
        for hook in self._wanted.get(module.__name__, ()):
            try:
                self._wrap(module, hook)
            except Exception as error:  # noqa: BLE001 — an import of the engine must not fail
                logger.warning("%s could not be hooked: %r", hook.where, error)

    def _wrap(self, module: Any, hook: Hook) -> None:
        if hook.where in self._worn:
            return
        owner: Any = module
        *classes, attribute = hook.name.split(".")
        for name in classes:
            owner = getattr(owner, name, None)
        original: Any = None if owner is None else _own(owner, attribute)
        if original is None:
            say = logger.debug if hook.since or hook.until else logger.warning
            say("%s is not there: this version of the engine is not known to us", hook.where)
            return
        guard = Guard(hook.where, lambda: self._remove(hook.where))
        wrapper = wrapt.FunctionWrapper(original, _around(hook, guard))
        setattr(owner, attribute, wrapper)
        self._worn[hook.where] = _Worn(owner, attribute, original, wrapper, guard)

    def _remove(self, where: str) -> None:
        worn = self._worn.pop(where, None)
        if worn is None:
            return
        worn.guard.close()
        if _own(worn.owner, worn.attribute) is worn.wrapper:
            setattr(worn.owner, worn.attribute, worn.original)
        else:  # someone wrapped it after us: taking ours off would take theirs off too
            logger.info("%s was wrapped again by another tool: ours stays, and does nothing", where)


def _own(owner: Any, attribute: str) -> Any:
    """Returns what stands in an owner itself: a static or class method as such, not bound."""
    own = cast(Mapping[str, Any], owner.__dict__)
    return own.get(attribute)


def _around(hook: Hook, guard: Guard) -> Callable[[Any, Any, Any, Any], Any]:
    before, after, counts = hook.before, hook.after, hook.counts

    def around(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if not guard.open or not (counts or is_instrumentation_enabled()):
            return wrapped(*args, **kwargs)
        call = Call(instance, args, kwargs)
        given = None if before is None else guard.run(before, call)
        if after is None:
            return wrapped(*args, **kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException:
            guard.run(after, call, given, None, True)
            raise
        guard.run(after, call, given, result, False)
        return result

    return around
