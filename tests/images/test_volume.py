"""A server's Python with the worker-init volume on PYTHONPATH: what it gets, and what it keeps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

SITECUSTOMIZE = Path(__file__).resolve().parents[2] / "images/worker-init/sitecustomize.py"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a server that has a NumPy of its own and no KAT-OTel."""
    folder = tmp_path_factory.mktemp("server")
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{VERSION}" / "site-packages"
    (packages / "numpy.py").write_text("__version__ = 'of the server'\n")
    metadata(packages / "numpy-2.3.1rc1.dist-info", "Name: numpy", "Version: 2.3.1rc1")
    return folder / "bin" / "python"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume whose tree starts "KAT-OTel" by a ``.pth`` file, as the wheel does."""
    folder = tmp_path / "volume"
    tree = folder / VERSION
    tree.mkdir(parents=True)
    shutil.copy(SITECUSTOMIZE, folder)
    (tree / "started.pth").write_text("import sys; sys.stdout.write('started ')\n")
    (tree / "numpy.py").write_text("__version__ = 'of the volume'\n")
    (tree / "only_here.py").write_text("")
    requires(folder, "numpy>=1.26")
    return folder


def metadata(folder: Path, *lines: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", *lines, ""]))


def requires(volume: Path, *packages: str) -> None:
    asked = [f"Requires-Dist: {package}" for package in packages]
    folder = volume / VERSION / "kat_otel-0.1.0.dist-info"
    metadata(folder, "Name: kat-otel", "Version: 0.1.0", *asked)


@pytest.fixture
def python(server: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(code: str, *paths: Path, kat: str = "on") -> subprocess.CompletedProcess[str]:
        asked = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "KAT_OTEL": kat}
        return subprocess.run(
            [server, "-c", code],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"]}
            | {key: value for key, value in asked.items() if value},
            check=True,
        )

    return run


def test_it_starts_with_the_server(python, volume: Path) -> None:
    done = python("import only_here; print('served')", volume)
    assert (done.stdout, done.stderr) == ("started served\n", "")


def test_nobody_asked_is_nothing_done(python, volume: Path) -> None:
    code = "import importlib.util as u; print(u.find_spec('only_here'))"
    assert python(code, volume, kat="").stdout == "None\n"


def test_the_servers_own_packages_are_never_replaced(python, volume: Path) -> None:
    done = python("import numpy; print(numpy.__version__)", volume)
    assert done.stdout == "started of the server\n"


def test_a_server_whose_packages_are_too_old_runs_without_and_says_why(
    python, volume: Path
) -> None:
    requires(volume, "numpy>=99.1")
    done = python("print('served')", volume)
    assert done.stdout == "served\n"
    assert "not instrumented: numpy here is " in done.stderr
    assert "99.1 or newer is needed" in done.stderr


def test_a_server_without_a_package_runs_without_and_says_which(python, volume: Path) -> None:
    requires(volume, "no-such-package>=1")
    done = python("print('served')", volume)
    assert done.stdout == "served\n"
    assert "no-such-package is not installed here, 1 or newer is needed" in done.stderr


def test_a_python_that_the_volume_has_no_tree_for_runs_without(python, volume: Path) -> None:
    (volume / VERSION).rename(volume / "2.7")
    done = python("print('served')", volume)
    assert done.stdout == "served\n"
    assert f"has nothing for Python {VERSION}" in done.stderr


def test_a_sitecustomize_that_it_hides_runs_all_the_same(
    python, volume: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import sys; sys.stdout.write('theirs ')\n")
    assert python("print('served')", volume, other).stdout == "theirs started served\n"


def test_a_broken_volume_does_not_reach_the_server(python, volume: Path) -> None:
    requires(volume, "numpy>=1.26")
    (volume / VERSION / "kat_otel-0.1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    (volume / VERSION / "broken.pth").write_text("import no_such_module\n")
    assert python("print('served')", volume).stdout.endswith("served\n")
