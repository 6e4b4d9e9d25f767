"""Builds the images without an engine, and runs what they run: buildah and bubblewrap.

The base images are replaced by one that holds nothing: this machine's /usr and Python are mounted
over it while a stage is built or run. All else is the Dockerfile's, word by word.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.environments import REPOSITORY

MACHINE = dict.fromkeys(("/usr", sys.base_prefix, "/etc/ssl/certs"))
BASE = "localhost/kat-base"
BUILT_SECONDS = 500


def need_tools() -> None:
    """Skips where images can't be built."""
    if os.geteuid() != 0:
        pytest.skip("images are built by root: sudo -E make test-slow")
    for tool, package in (("buildah", "buildah"), ("bwrap", "bubblewrap")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not installed: apt-get install --no-install-recommends {package}")


class Builder:
    """A place for images, gone with :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        places = ("--root", folder / "storage", "--runroot", folder / "run")
        self._command = ["buildah", "--storage-driver", "overlay", *map(str, places)]
        self._mounts = [f"--volume={place}:{place}:ro" for place in MACHINE]
        self._make_base()
        self._pip = folder / "pip.conf"
        self._pip.write_text(_pip_settings())

    def buildah(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [*self._command, *map(str, arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILT_SECONDS,
        )
        assert done.returncode == 0, f"{arguments[0]}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def build(self, target: str) -> None:
        """Runs every instruction of the stages that ``target`` is made of."""
        bases = [
            f"--build-arg={base}_{what}"
            for base in ("BUILD", "PYTHON", "COPY")
            for what in (f"IMAGE={BASE}", f"DIGEST={self._digest}")
        ]
        secret = f"--secret=id=pip.conf,src={self._pip}"
        how = ("--pull=false", "--format=docker", "--isolation=chroot", "--layers", secret)
        file = ("--file", "images/Dockerfile", "--target", target, "--tag", f"localhost/{target}")
        self.buildah("build", *how, *bases, *self._mounts, *file, ".")

    def settings(self, target: str) -> dict[str, Any]:
        """What the image says of itself: Env, User, Entrypoint, Cmd, Healthcheck, Labels."""
        shown = json.loads(self.buildah("inspect", "--type", "image", f"localhost/{target}"))
        return shown["Docker"]["config"]

    def run(self, target: str, *command: str, volume: Path, at: str) -> str:
        """Runs a command as the image's user, on a read-only root, without a network.

        Args:
            target: the image.
            command: what runs in it.
            volume: the one folder beside /tmp that can be written.
            at: where it is in the container.
        """
        settings = self.settings(target)
        user = settings["User"].partition(":")[0]
        root = self.buildah("mount", self.buildah("from", "--pull=false", f"localhost/{target}"))
        Path(root, at.lstrip("/")).mkdir(parents=True, exist_ok=True)  # as an engine does
        os.chown(volume, int(user), int(user))
        sandbox = f"--ro-bind {root} / --proc /proc --dev /dev --tmpfs /tmp --bind {volume} {at}"
        for place in MACHINE:
            sandbox += f" --ro-bind {place} {place}"
        sandbox += " --unshare-net --unshare-pid --unshare-ipc --die-with-parent --clearenv"
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # for setpriv alone
            sandbox += f" --cap-add {capability}"
        variables = [word for pair in settings["Env"] for word in ("--setenv", *pair.split("=", 1))]
        drop = f"setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs"
        become = f'chmod 1777 /tmp; exec {drop} --bounding-set=-all --inh-caps=-all -- "$@"'
        done = subprocess.run(
            ["bwrap", *sandbox.split(), *variables, "sh", "-c", become, "sh", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")

    def _make_base(self) -> None:
        files = self._folder / "base"
        for place in (
            *MACHINE,
            "/base/bin",
            "/etc",
            "/proc",
            "/dev",
            "/sys",
            "/run",
            "/var",
            "/tmp",
        ):
            (files / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (files / "tmp").chmod(0o1777)
        for name in ("bin", "lib", "lib64", "sbin"):
            (files / name).symlink_to(f"usr/{name}")
        (files / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (files / "etc/group").write_text("root:x:0:\n")
        python = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
        (files / "base/bin/python").symlink_to(python)
        container = self.buildah("from", "scratch")
        self.buildah("add", container, files, "/")
        self.buildah("config", "--env", "PATH=/base/bin:/usr/bin:/bin", container)
        self.buildah("commit", "--rm", "--format", "docker", container, BASE)
        self._digest = self.buildah("images", "--format", "{{.Digest}}", BASE)


def _pip_settings() -> str:
    """What pip is told on this machine, so that a build asks the same index."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    lines = dict(line.split("=", 1) for line in shown.splitlines())
    wanted = {
        name.rpartition(".")[2]: value.strip("'")
        for name, value in lines.items()
        if name.rpartition(".")[2] in {"index-url", "extra-index-url", "trusted-host", "cert"}
    }
    return "[global]\n" + "".join(f"{k} = {v}\n" for k, v in wanted.items())
