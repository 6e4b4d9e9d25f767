"""What tests of the worker side share."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.lmdia.recording import Group
from tests.instrumentation import standin_gpus
from tests.instrumentation.simulated import Collector, program_of
from tests.instrumentation.standin_gpus import HEALTHY, StandinGpus


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in libnvidia-ml.so.1."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: apt-get install gcc")
    return standin_gpus.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandinGpus]:
    """Two healthy GPUs in this process and those that it starts."""
    # dlopen("libnvidia-ml.so.1") finds what is loaded under that name already.
    ctypes.CDLL(str(nvml_library / standin_gpus.LIBRARY))
    made = StandinGpus(tmp_path, nvml_library)
    made.say(HEALTHY)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.say({key: 0 for key in made.said if key.startswith("hang.")})


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture(scope="session")
def pair() -> Group:
    """Two ranks of a small model."""
    return Group(program_of(2), 600)
