"""Plain PyTorch: a step is what the program says, or a forward pass of its outermost module.

``kat_otel.step()`` and ``kat_otel.instrument(model)`` are for programs that say it. For those that
say nothing, the first module with children that runs as the outermost one is taken for the model:
a hook on all modules finds it and is taken off, so that no other module ever pays.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.engines.hooks import Hook
from kat_otel.instrumentation.guard import Guard
from kat_otel.instrumentation.session import Open, session

__all__ = ["CALLS", "MODULE", "Instrumented", "find_model", "instrument", "step", "stop_finding"]

logger: Final = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")

_ENGINES: Final = ("vllm", "sglang", "tensorrt_llm", "deepspeed")
MODULE: Final = "torch.nn.modules.module"

CALLS: Final = (
    Hook(MODULE, "register_module_forward_pre_hook", ("hook",)),
    Hook(MODULE, "Module.register_forward_pre_hook", ("hook",)),
    Hook(MODULE, "Module.register_forward_hook", ("hook",)),
    Hook(MODULE, "Module.children"),
)


class step:  # noqa: N801 — reads as a statement: `with kat_otel.step():`
    """A step of a program that runs its model itself; a context manager and a decorator.

    Args:
        step: its number, the same on all ranks; by default they are counted from 0.
        micro: its micro-batch; 0 where there are none.

    What fails inside is the program's own; nothing of ours is raised.
    """

    __slots__ = ("_micro", "_opened", "_step")

    def __init__(self, *, step: int | None = None, micro: int = 0) -> None:
        self._step = step
        self._micro = micro
        self._opened: list[Open | None] = []

    def __enter__(self) -> Self:
        self._opened.append(_guard.run(_begin, self._step, self._micro))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _guard.run(_end, self._opened.pop())

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Returns the function as one that is a step whenever it runs."""
        number, micro = self._step, self._micro

        @functools.wraps(function)
        def stepped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with step(step=number, micro=micro):  # one each: threads may run it together
                return function(*args, **kwargs)

        return stepped


def _begin(number: int | None, micro: int) -> Open | None:
    return session().begin(StepFlag.NONE, step=number, micro=micro)


def _end(opened: Open | None) -> None:
    session().end(opened)


_guard: Final = Guard("kat_otel.step", lambda: None)


class Instrumented:
    """A module whose forward passes are steps, until :meth:`remove`."""

    def __init__(self, model: Any) -> None:
        self._running = threading.local()
        self._guard = Guard(f"forward of {type(model).__name__}", self.remove)
        self._handles: list[Any] = [
            model.register_forward_pre_hook(_eager(self._before)),
            model.register_forward_hook(_eager(self._after), always_call=True),
        ]

    def remove(self) -> None:
        """Takes the hooks off."""
        while self._handles:
            self._handles.pop().remove()

    def begin(self) -> None:
        """Begins a step, as the hook before a forward pass does."""
        self._running.opened = self._guard.run(_begin, None, 0)

    def _before(self, _module: Any, _inputs: Any) -> None:
        self.begin()

    def _after(self, _module: Any, _inputs: Any, _output: Any) -> None:
        opened: Open | None = getattr(self._running, "opened", None)
        self._running.opened = None
        self._guard.run(_end, opened)


def _eager(hook: Callable[..., None]) -> Callable[..., None]:
    """Keeps torch.compile, where it is in use, from tracing a hook into the model's graph."""
    compiler: Any = getattr(sys.modules.get("torch"), "compiler", None)
    if compiler is None or "torch._dynamo" not in sys.modules:
        return hook
    return cast(Callable[..., None], compiler.disable(hook))


def instrument(model: Any) -> Instrumented:
    """Makes each forward pass of a module a step.

    Args:
        model: the outermost ``torch.nn.Module``.

    Returns:
        Its handle; ``remove()`` undoes it.
    """
    stop_finding()
    return Instrumented(model)


# --- programs that say nothing ---------------------------------------------------------------


class _Search:
    """For the model of a program that does not name it."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.found: Instrumented | None = None
        self.guard = Guard("search for the outermost module", self.stop)

    def stop(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.remove()

    def look(self, module: Any, _inputs: Any) -> None:
        self.guard.run(self._look, module)

    def _look(self, module: Any) -> None:
        if self.handle is None:
            return
        if any(engine in sys.modules for engine in _ENGINES):
            self.stop()  # the engine's own hooks say what a step is
            return
        if next(iter(module.children()), None) is None:
            return  # a lone layer is no model
        self.stop()
        self.found = Instrumented(module)
        logger.info("each forward pass of %s is a step", type(module).__name__)
        self.found.begin()  # its own hook was added too late for the pass that runs now


_search = _Search()


def find_model(torch_module: Any) -> None:
    """Looks for the outermost module of a program from now on.

    Args:
        torch_module: ``torch.nn.modules.module``.
    """
    global _search  # noqa: PLW0603 — one a process
    if _search.handle is None and _search.found is None:
        _search = _Search()
        _search.handle = torch_module.register_module_forward_pre_hook(_search.look)


def stop_finding() -> None:
    """Ends the search; a model that was found is let go."""
    global _search  # noqa: PLW0603
    _search.stop()
    if _search.found is not None:
        _search.found.remove()
    _search = _Search()
