"""Gives KAT-OTel to a Python program of another container, from the volume this file lies on.

With the volume on ``PYTHONPATH`` every Python imports this file at its start. Where ``KAT_OTEL``
asks for it, the folder of this Python's version goes to the END of the search path, so that what
the server brings (NumPy above all, on which PyTorch is built) is never replaced. A server whose
packages are too old for KAT-OTel runs without it, and standard error says why.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs each start


def hidden() -> None:
    """Runs the ``sitecustomize`` that this one hides: the distribution's, or somebody's hook."""
    rest = [place for place in sys.path if os.path.abspath(place) != HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version: ``0.66b2`` is (0, 66)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def too_old(tree: str) -> str | None:
    """What this Python lacks for the KAT-OTel in ``tree``, which is on the search path; or None."""
    from importlib import metadata  # noqa: PLC0415 - only where KAT-OTel is asked for

    for kat in metadata.distributions(name="kat-otel", path=[tree]):
        for line in kat.requires or ():
            asked = re.fullmatch(r"([\w.-]+)>=([\w.]+)", line)
            if not asked:  # an extra's
                continue
            try:
                found = metadata.version(asked[1])
            except metadata.PackageNotFoundError:
                return f"{asked[1]} is not installed here, {asked[2]} or newer is needed"
            if numbers(found) < numbers(asked[2]):
                return f"{asked[1]} here is {found}, {asked[2]} or newer is needed"
    return None


def add() -> None:
    """Adds the tree of this Python's version and does what its ``.pth`` files say."""
    import site  # noqa: PLC0415 - as above

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    tree = os.path.join(HERE, version)  # noqa: PTH118
    if not os.path.isdir(tree):  # noqa: PTH112
        sys.stderr.write(f"kat-otel: not instrumented: {HERE} has nothing for Python {version}\n")
        return
    sys.path.append(tree)
    if lack := too_old(tree):
        sys.path.remove(tree)
        sys.stderr.write(f"kat-otel: not instrumented: {lack}: pip install kat-otel there\n")
        return
    site.addsitedir(tree)


try:
    hidden()
finally:
    if os.environ.get("KAT_OTEL") and "kat_otel" not in sys.modules:
        try:
            add()
        except Exception as error:  # noqa: BLE001 - the server runs, whatever is wrong with us
            sys.stderr.write(f"kat-otel: not instrumented: {error!r}\n")
