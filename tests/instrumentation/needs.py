"""What the tests of capture cannot do without."""

from __future__ import annotations

import os
import shutil

import pytest


def compiler() -> None:
    """Skips the module that calls it, at its top, where there is no C compiler."""
    if not any(map(shutil.which, (os.environ.get("CC") or "cc", "cc", "gcc", "clang"))):
        pytest.skip("no C compiler: apt-get install gcc libc6-dev", allow_module_level=True)
