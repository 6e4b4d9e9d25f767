"""Hooks go on when a module is there, see every call, and come off without a trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from kat_otel.instrumentation.engines.hooks import Call, Hook, HookSet
from kat_otel.instrumentation.guard import FAILURES

SOURCE = """
class Worker:
    def run(self, batch, more=1):
        if batch == "bad":
            raise RuntimeError("the engine's own")
        return batch, more

    @classmethod
    def make(cls, request):
        return cls.__name__, request

    @staticmethod
    def plain(x):
        return x
"""


@pytest.fixture
def engine(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported."""
    name = f"engine_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def load(name: str) -> ModuleType:
    return __import__(name)


class Seen(list[Any]):
    def before(self, call: Call) -> str:
        self.append(("before", call.argument(0, "batch"), call.argument(1, "more")))
        return "given"

    def after(self, _call: Call, given: Any, result: Any, failed: bool) -> None:
        self.append(("after", given, result, failed))


def test_a_module_that_comes_later_is_hooked_when_it_comes(engine: str) -> None:
    seen, hooks = Seen(), HookSet()
    hooks.put_on([Hook(engine, "Worker.run", ("batch",), seen.before, seen.after)])
    assert hooks.worn == frozenset()
    worker = load(engine).Worker()
    assert hooks.worn == {f"{engine}.Worker.run"}
    assert worker.run("a", more=2) == ("a", 2)
    assert worker.run(batch="b") == ("b", 1)
    assert seen == [
        ("before", "a", 2),
        ("after", "given", ("a", 2), False),
        ("before", "b", None),
        ("after", "given", ("b", 1), False),
    ]


def test_class_and_static_methods_stay_what_they_are(engine: str) -> None:
    module, seen, hooks = load(engine), Seen(), HookSet()
    before = dict(vars(module.Worker))
    hooks.put_on([Hook(engine, f"Worker.{name}", after=seen.after) for name in ("make", "plain")])
    assert module.Worker.make(1) == ("Worker", 1)
    assert module.Worker.plain(2) == module.Worker().plain(2) == 2
    assert len(seen) == 3
    hooks.take_off()
    assert all(vars(module.Worker)[name] is thing for name, thing in before.items())


def test_what_the_engine_raises_passes_and_is_told(engine: str) -> None:
    seen, hooks = Seen(), HookSet()
    hooks.put_on([Hook(engine, "Worker.run", ("batch",), after=seen.after)])
    with pytest.raises(RuntimeError, match="the engine's own"):
        load(engine).Worker().run("bad")
    assert seen == [("after", None, None, True)]


def test_a_hook_that_fails_changes_nothing_and_goes(engine: str) -> None:
    def fails(_call: Call) -> None:
        raise AttributeError("scheduled_new_reqs")

    hooks = HookSet()
    hooks.put_on([Hook(engine, "Worker.run", ("batch",), fails)])
    module = load(engine)
    for number in range(FAILURES + 2):
        assert module.Worker().run(number) == (number, 1)
    assert hooks.worn == frozenset()


def test_what_another_tool_wrapped_after_us_is_left_to_it(engine: str) -> None:
    module, seen, hooks = load(engine), Seen(), HookSet()
    hooks.put_on([Hook(engine, "Worker.run", ("batch",), seen.before)])
    ours = module.Worker.run

    def theirs(self: Any, batch: Any) -> Any:
        return ours(self, batch)

    module.Worker.run = theirs
    hooks.take_off()
    assert vars(module.Worker)["run"] is theirs
    assert module.Worker().run("a") == ("a", 1)
    assert seen == []


def test_suppressed_instrumentation_is_respected_but_steps_are_counted(engine: str) -> None:
    seen, counting, hooks = Seen(), Seen(), HookSet()
    hooks.put_on(
        [
            Hook(engine, "Worker.run", ("batch",), seen.before),
            Hook(engine, "Worker.make", ("request",), counting.before, counts=True),
        ]
    )
    module = load(engine)
    with suppress_instrumentation():
        module.Worker().run("a")
        module.Worker.make("a")
    assert (len(seen), len(counting)) == (0, 1)


@pytest.mark.parametrize(("since", "level"), [("", "WARNING"), ("2.0", "DEBUG")])
def test_a_function_that_is_not_there_is_said(
    engine: str, since: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    HookSet().put_on([Hook(engine, "Worker.gone", since=since), Hook(engine, "None.at.all")])
    load(engine)
    (said,) = [r for r in caplog.records if "Worker.gone" in r.message]
    assert said.levelname == level


def test_hooks_come_on_again(engine: str) -> None:
    seen, hooks = Seen(), HookSet()
    rows = [Hook(engine, "Worker.run", ("batch",), seen.before)]
    hooks.put_on(rows)
    hooks.take_off()
    module = load(engine)  # imported while they were off
    module.Worker().run("a")
    assert seen == []
    hooks.put_on(rows)
    module.Worker().run("b")
    assert len(seen) == 1
