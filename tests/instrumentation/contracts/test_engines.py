"""The engines' real packages have what our hooks name: the oldest and the newest supported."""

from __future__ import annotations

import pytest

from kat_otel.instrumentation.engines import ENGINES, Engine
from kat_otel.instrumentation.engines.hooks import Hook
from tests.instrumentation.contracts.check import applies, broken
from tests.instrumentation.contracts.packages import NotReachedError, Package

VERSIONS = [
    (engine, version)
    for engine in ENGINES
    if engine.packaged
    for version in (engine.oldest, *engine.between, engine.newest)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "version"), VERSIONS, ids=[f"{e.name}-{version}" for e, version in VERSIONS]
)
def test_the_real_package_has_every_function_that_is_hooked(engine: Engine, version: str) -> None:
    package = Package(engine.name, version)
    rows = [hook for hook in (*engine.hooks, *engine.calls) if applies(hook, version)]
    assert rows
    try:
        wrong = {hook.where: broken(hook, package.read) for hook in rows}
    except NotReachedError as error:
        pytest.skip(f"no package index ({error}): make test-slow with pip's index reachable")
    assert {where: what for where, what in wrong.items() if what} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [e for e in ENGINES if e.packaged], ids=lambda engine: engine.name
)
def test_what_a_row_says_came_later_or_went_is_so(engine: Engine) -> None:
    for hook in (*engine.hooks, *engine.calls):
        for version in (engine.oldest, *engine.between, engine.newest):
            if applies(hook, version):
                continue
            try:
                assert broken(hook, Package(engine.name, version).read), (hook.where, version)
            except NotReachedError as error:
                pytest.skip(
                    f"no package index ({error}): make test-slow with pip's index reachable"
                )


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [e for e in ENGINES if not e.packaged], ids=lambda engine: engine.name
)
def test_what_is_said_not_to_be_on_the_index_is_not(engine: Engine) -> None:
    """NVIDIA's own index has it: ours has a stub, and the day it does not, this fails."""
    try:
        assert Package(engine.name, engine.newest).names() == []
    except NotReachedError as error:
        pytest.skip(f"no package index ({error}): make test-slow with pip's index reachable")


def _tree(source: str):
    return {"engine/worker.py": source}.get


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Worker:\n    def run(self, batch, more=1): ...", ""),
        ("class Worker:\n    @classmethod\n    def run(cls, batch): ...", ""),
        ("class Worker:\n    def run(self, lot): ...", "we use ('batch',)"),
        ("class Worker:\n    def run(self, first, batch): ...", "we use ('batch',)"),
        ("class Worker:\n    run: int", "is no function"),
        ("class Other:\n    def run(self, batch): ...", "no Worker"),
        ("class Worker:\n    def go(self, batch): ...", "no run"),
        ("if True:\n    class Worker:\n        def run(self, batch): ...", ""),
    ],
)
def test_the_check_sees_what_is_missing(source: str, said: str) -> None:
    found = broken(Hook("engine.worker", "Worker.run", ("batch",)), _tree(source))
    assert said in found
    assert bool(said) == bool(found)


def test_a_module_that_is_gone_is_named() -> None:
    assert broken(Hook("engine.gone", "f"), _tree("")) == "no module engine.gone"
