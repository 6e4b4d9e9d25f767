"""Which libcupti: the one of this process if there is one, for a second copy collides with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Candidate", "find"]

_NAME: Final = re.compile(r"libcupti\.so(\.\d+)*$")
_RUNTIME: Final = re.compile(r"lib(?:cudart|cublas|nvrtc)[^/]*\.so\.(\d+)")
_WHEELS: Final = ("nvidia/cuda_cupti/lib", "nvidia/cu13/lib", "nvidia/cu14/lib")
_TOOLKITS: Final = (
    "extras/CUPTI/lib64",
    "lib64",
    "targets/x86_64-linux/lib",
    "targets/sbsa-linux/lib",
)
_SYSTEM: Final = ("libcupti.so.13", "libcupti.so.12", "libcupti.so")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A libcupti to try.

    Attributes:
        path: for dlopen.
        where: how it was found: ``"KAT_CUPTI_LIBRARY"``, ``"mapped"``, ``"wheel"``,
            ``"toolkit"``, ``"system"``.
    """

    path: str
    where: str


def find(
    given: str = "",
    *,
    maps: str | None = None,
    folders: Iterable[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """Returns what to try, best first.

    One that is named, or that the process has mapped, is the only one. Of the others those come
    first whose major version is that of the CUDA runtime in the process.

    Args:
        given: ``KAT_CUPTI_LIBRARY``.
        maps: ``/proc/self/maps``, as it is by default.
        folders: where wheels are looked for; ``sys.path`` by default.
        environment: for ``CUDA_HOME`` and ``CUDA_PATH``; the process's by default.
    """
    if given:
        return [Candidate(given, "KAT_CUPTI_LIBRARY")]
    mapped = _mapped() if maps is None else maps
    for line in mapped.splitlines():
        path = line.partition("/")[2]
        if _NAME.search(path):
            return [Candidate("/" + path, "mapped")]
    found = [
        *(Candidate(path, "wheel") for path in _wheels(sys.path if folders is None else folders)),
        *(
            Candidate(path, "toolkit")
            for path in _toolkits(os.environ if environment is None else environment)
        ),
        *(Candidate(name, "system") for name in _SYSTEM),
    ]
    runtime = _RUNTIME.search(mapped)
    if runtime:
        found.sort(key=lambda one: not one.path.endswith(f".so.{runtime[1]}"))
    return list(dict.fromkeys(found))


def _mapped() -> str:
    try:
        return Path("/proc/self/maps").read_text(errors="replace")
    except OSError:  # no /proc: nothing is known to be mapped
        return ""


def _wheels(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        for place in _WHEELS:
            yield from _in(Path(folder, place))


def _toolkits(environment: Mapping[str, str]) -> Iterator[str]:
    roots = [Path(root) for key in ("CUDA_HOME", "CUDA_PATH") if (root := environment.get(key))]
    roots += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    for root in roots:
        for place in _TOOLKITS:
            yield from _in(root / place)


def _in(folder: Path) -> Iterator[str]:
    """Files named libcupti in a folder: the plain name last, for it is a link to one of them."""
    try:
        names = [entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    for name in sorted(names, key=lambda name: (name == "libcupti.so", len(name))):
        yield str(folder / name)
