"""What an inference server imports with KAT-OTel: little, nothing heavy, and most of it late."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.packaging.environments import REPOSITORY

HEAVY = {
    "click",
    "cupy",
    "grpc",
    "jinja2",
    "msgspec",
    "numba",
    "openai",
    "pydantic",
    "rich",
    "torch",
}
ALLOWED = {
    "kat_otel",
    "numpy",
    "opentelemetry",
    "packaging",  # asked by opentelemetry's instrumentation
    "typing_extensions",  # asked by opentelemetry's API
    "urllib3",
    "wrapt",
}

# Also sees what is asked for in vain: `try: import cupy` finds nothing here, but would in a server.
OBSERVE = """
import importlib, json, pkgutil, sys
asked = set()
class Observer:
    def find_spec(self, name, path=None, target=None):
        asked.add(name.partition(".")[0])
sys.meta_path.insert(0, Observer())
before = set(sys.modules)
exec(sys.argv[1])
new = {name for name in set(sys.modules) - before if getattr(sys.modules[name], "__spec__", None)}
packages = {name.partition(".")[0] for name in new} - set(sys.stdlib_module_names)
ours = [name for name in new if name.startswith("kat_otel")]
print(json.dumps({"asked": sorted(asked), "packages": sorted(packages), "ours": sorted(ours)}))
"""
EVERYTHING = """
import kat_otel.instrumentation as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
from kat_otel import errors, identity, kernels, semconv, spans
"""


PATHS = [str(REPOSITORY), *(path for path in sys.path if "site-packages" in path)]


def observed(code: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {PATHS!r}\n{OBSERVE}", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_module_of_the_worker_asks_for_anything_heavy() -> None:
    seen = observed(EVERYTHING)
    assert {"kat_otel", "numpy", "urllib3"} <= set(seen["packages"])  # all of it was imported
    assert set(seen["packages"]) <= ALLOWED
    assert not HEAVY & set(seen["asked"])


@pytest.mark.parametrize("name", sorted(HEAVY - {"torch"}))
def test_the_observer_sees_what_is_imported_and_what_is_not_there(name: str) -> None:
    seen = observed(f"try:\n    import {name}\nexcept ImportError:\n    pass")
    assert name in seen["asked"]


def test_hooks_come_without_what_sends() -> None:
    """Until the first step a server has paid for the hooks alone, not for HTTP and the SDK."""
    seen = observed("import kat_otel.instrumentation.instrumentor")
    assert set(seen["packages"]) <= ALLOWED - {"urllib3"}
    assert "kat_otel" in seen["packages"]


def test_the_start_of_an_interpreter_pays_for_one_small_module() -> None:
    seen = observed("from kat_otel.instrumentation.start import run; run()")
    packages = ["kat_otel", "kat_otel.instrumentation"]
    assert seen["ours"] == [*packages, "kat_otel.instrumentation.start"]
    assert seen["packages"] == ["kat_otel"]
