"""Builds the native part of capture when the package is installed, if there is a C compiler.

Hatchling's build hook, for wheels and editable installs. Without a compiler the wheel is pure and
all but capture by CUPTI works; ``kat doctor`` then says what is missing. In a checkout,
``python hatch_build.py`` builds it anew.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, or by a test, where hatchling is not installed
    BuildHookInterface = object  # type: ignore[assignment,misc]

PLACE = Path("kat_otel", "instrumentation", "native")
LIBRARY = "libkat_capture.so"
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
LIBRARIES = ("-pthread", "-ldl")


def compiler() -> list[str] | None:
    """Returns the command of a C compiler: ``$CC``, else the first of cc, gcc, clang."""
    if given := shlex.split(os.environ.get("CC", "")):
        return given if shutil.which(given[0]) else None
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def build(root: Path, target: Path, *flags: str) -> str | None:
    """Compiles the library to ``target``; returns what went wrong, or None."""
    if not sys.platform.startswith("linux"):
        return f"capture is for Linux, this is {sys.platform}"
    command = compiler()
    if command is None:
        return "no C compiler (tried: $CC, cc, gcc, clang)"
    sources = sorted(str(path) for path in (root / PLACE).glob("*.c"))
    # Beside the target and renamed: a process that has the old one mapped keeps it.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / LIBRARY
        done = subprocess.run(  # noqa: S603 - the user's compiler
            [*command, *FLAGS, *flags, *sources, "-o", str(made), *LIBRARIES],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"{shlex.join(command)} failed:\n{done.stderr.strip()}"
        made.replace(target)
    return None


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Adds the library to the wheel, whose tag then names the platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds into the tree for an editable install, else into a folder of its own."""
        root = Path(self.root)
        if version == "editable":
            target = root / PLACE / LIBRARY
        else:
            self.folder = tempfile.TemporaryDirectory()
            target = Path(self.folder.name) / LIBRARY
        problem = build(root, target)
        if problem:
            self.app.display_warning(f"kat-otel without capture by CUPTI: {problem}")
            return
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        if version != "editable":
            build_data["force_include"][str(target)] = str(PLACE / LIBRARY)

    def finalize(self, *_: Any) -> None:
        """Removes that folder."""
        if hasattr(self, "folder"):
            self.folder.cleanup()


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.exit(build(here, here / PLACE / LIBRARY, *sys.argv[1:]))
