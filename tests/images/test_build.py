"""The images as they are built and run: every instruction of the Dockerfile, without an engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.builder import Builder, need_tools
from tests.packaging.environments import environment, interpreters, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SERVE = """
import json, subprocess, sys, time
command, health = json.loads(sys.argv[1])
server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
begin = time.monotonic()
while subprocess.run(health, capture_output=True).returncode != 0:
    if server.poll() is not None or time.monotonic() - begin > 60:
        server.kill()
        sys.exit(f"not healthy: {server.communicate()[0]}")
    time.sleep(0.2)
server.terminate()
print(json.dumps({"said": server.communicate(timeout=30)[0], "code": server.returncode}))
"""

COUNT_LOOPS = """
import gc, importlib, json, pkgutil, sys
import kat_otel
from numba.core.dispatcher import Dispatcher
for part in ("otlp", "processor", "ttad"):
    package = importlib.import_module(f"kat_otel.{part}")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
stats = [loop.stats for loop in gc.get_objects() if isinstance(loop, Dispatcher)]
print(sum(len(one.cache_hits) for one in stats), sum(len(one.cache_misses) for one in stats))
"""

USE_TREE = """
import ctypes, json, sys
import numpy, kat_otel.instrumentation.instrumentor, opentelemetry.trace, wrapt, urllib3
from kat_otel.instrumentation.capture.library import PATH
ctypes.CDLL(str(PATH))
mine = [module.__file__ for module in (kat_otel, opentelemetry.trace, wrapt, urllib3)]
print(json.dumps({"volume": mine, "server": numpy.__file__}))
"""


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    need_tools()
    made = Builder(tmp_path_factory.mktemp("images"))
    try:
        for target in ("worker-init", "processor"):
            made.build(target)
        yield made
    finally:
        made.close()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir(mode=0o700)
    return folder


def test_the_processor_serves_as_it_is_started_on_a_read_only_root(
    builder: Builder, volume: Path
) -> None:
    image = builder.settings("processor")
    kind, *health = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    told = json.dumps([image["Entrypoint"] + image["Cmd"], health])
    place = "/var/lib/kat-otel"
    done = json.loads(
        builder.run("processor", "python", "-c", SERVE, told, volume=volume, at=place)
    )
    assert done["code"] == 0, done["said"]
    assert "compiled" not in done["said"]
    assert (volume / "wal").is_dir()


def test_the_processor_finds_every_loop_compiled(builder: Builder, volume: Path) -> None:
    assert not [pair for pair in builder.settings("processor")["Env"] if "NUMBA" in pair]
    said = builder.run("processor", "python", "-c", COUNT_LOOPS, volume=volume, at="/mnt")
    hits, misses = map(int, said.split())
    assert hits > 50
    assert misses == 0


def test_every_python_of_a_server_can_use_what_worker_init_copies(
    builder: Builder, volume: Path, tmp_path: Path
) -> None:
    image = builder.settings("worker-init")
    builder.run("worker-init", *image["Entrypoint"], *image["Cmd"], volume=volume, at="/volume")
    for version, interpreter in interpreters().items():
        programs = environment(tmp_path / version, interpreter, "numpy")
        asked = {"KAT_OTEL": "on", "PYTHONPATH": str(volume)}
        done = run(programs / "python", "-c", USE_TREE, **asked)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert all(name.startswith(f"{volume}/{version}/") for name in found["volume"])
        assert found["server"].startswith(str(programs.parent))
