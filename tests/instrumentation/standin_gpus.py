"""GPUs that are a text file: the stand-in libnvidia-ml.so.1, built here, and what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pynvml

SOURCE = Path(__file__).parent / "standin" / "nvml.c"
LIBRARY = "libnvidia-ml.so.1"

HEALTHY = {
    "gpus": 2,
    "sm_clock": 1980,
    "memory_clock": 2619,
    "reasons": 0,
    "power": 620_000,
    "power_limit": 700_000,
    "temperature": 64,
    "pcie_width": 16,
    "pcie_generation": 5,
    "utilization": 97,
    "links": 2,
}
"""An H100 at work, without what is read as numbered fields."""


def field(name: str, scope: int = 0) -> str:
    """The stand-in's key of a numbered field."""
    return f"field.{getattr(pynvml, f'NVML_FI_DEV_{name}')}.{scope}"


ALL_LINKS = 0xFFFFFFFF
FIELDS = {
    field("ECC_SBE_VOL_TOTAL"): 2,
    field("ECC_DBE_VOL_TOTAL"): 1,
    field("MEMORY_TEMP"): 71,
    f"type.{pynvml.NVML_FI_DEV_MEMORY_TEMP}": 1,
    field("PCIE_REPLAY_COUNTER"): 3,
    field("PCIE_COUNT_CORRECTABLE_ERRORS"): 4,
    field("REMAPPED_COR"): 5,
    field("REMAPPED_UNC"): 6,
    field("REMAPPED_PENDING"): 0,
    field("REMAPPED_FAILURE"): 1,
    field("PERF_POLICY_POWER"): 1_500_000_000,
    field("CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN"): 2_000_000_000,
    field("CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN"): 3_000_000_000,
    field("CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN"): 4_000_000_000,
    field("NVLINK_ERROR_DL_CRC", 0): 7,
    field("NVLINK_ERROR_DL_CRC", 1): 8,
    field("NVLINK_ERROR_DL_REPLAY", 0): 9,
    field("NVLINK_ERROR_DL_REPLAY", 1): 0,
    field("NVLINK_ERROR_DL_RECOVERY", 0): 0,
    field("NVLINK_ERROR_DL_RECOVERY", 1): 1,
    field("NVLINK_THROUGHPUT_DATA_TX", ALL_LINKS): 1_000,
    field("NVLINK_THROUGHPUT_DATA_RX", ALL_LINKS): 2_000,
}


def build(folder: Path) -> Path:
    """Compiles the stand-in; returns the folder that holds the library."""
    strict = ["-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}"]
    made = ["-shared", "-fPIC", "-O1", "-o", str(folder / LIBRARY), str(SOURCE)]
    subprocess.run(["cc", *strict, *made], check=True)
    return folder


def uuid(gpu: int, mig: int = 0) -> str:
    """What the stand-in calls a GPU, or a MIG device of it."""
    return f"{'MIG' if mig else 'GPU'}-{gpu + 0xA0:08x}-5354-414e-4449-{mig:012x}"


class StandinGpus:
    """What the GPUs say: a file that the library reads at every call."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "gpus"
        self._calls = folder / "calls"
        self._library = library
        self.said: dict[str, int] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a new process finds the stand-in."""
        return {
            "LD_LIBRARY_PATH": str(self._library),
            "KAT_STANDIN_NVML": str(self._file),
            "KAT_STANDIN_NVML_CALLS": str(self._calls),
        }

    def say(self, said: dict[str, int]) -> None:
        """Adds to what they say, at once."""
        self.said.update(said)
        self._write()

    def silence(self, *keys: str) -> None:
        """What is not said is not supported; a hang or an error ends."""
        for key in keys:
            del self.said[key]
        self._write()

    def _write(self) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text("".join(f"{key} {value}\n" for key, value in self.said.items()))
        draft.replace(self._file)

    def calls(self) -> list[str]:
        """Names of the functions called since the last time."""
        if not self._calls.exists():
            return []
        names = self._calls.read_text().split()
        self._calls.unlink()
        return names


def python(program: str, environment: dict[str, str], *arguments: str) -> str:
    """Runs a program in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
