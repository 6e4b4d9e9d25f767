"""What a release brings along is listed, by one command that refuses an unknown licence."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.environments import REPOSITORY, VERSIONS

PIN = re.compile(r"(?m)^([\w.-]+)==([^\s;]+)")


def make_sbom(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script, folder], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_package_is_listed_with_its_version_and_licence(tmp_path: Path) -> None:
    done = make_sbom(REPOSITORY / "scripts/make-sbom", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set(PIN.findall(VERSIONS.read_text()))
    for what, expected in (("worker", {"numpy", "wrapt"}), ("processor", {"numba", "openai"})):
        bill = json.loads((tmp_path / f"sbom-{what}.cdx.json").read_text())
        assert bill["bomFormat"] == "CycloneDX"
        listed = {one["name"].lower().replace("_", "-"): one for one in bill["components"]}
        assert expected <= set(listed)
        licences = (tmp_path / f"licences-{what}.md").read_text().lower().replace("_", "-")
        for name, component in listed.items():
            assert (name, component["version"]) in tested
            (row,) = re.findall(rf"(?m)^\| {name} .*$", licences)
            licence = row.split("|")[3].strip()
            assert licence not in {"", "unknown"}, row
    assert "numba" not in (tmp_path / "licences-worker.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_licence_that_nobody_allowed_stops_it(tmp_path: Path) -> None:
    text = (REPOSITORY / "scripts/make-sbom").read_text()
    allowed = re.search(r"(?m)^allowed='(.*)'$", text)
    assert allowed is not None
    stricter = tmp_path / "scripts" / "make-sbom"
    stricter.parent.mkdir()
    text = text.replace('cd "$(dirname "$0")/.."', f"cd {REPOSITORY}")
    stricter.write_text(text.replace(allowed[1], "Apache;MIT"))
    stricter.chmod(0o755)
    done = make_sbom(stricter, tmp_path / "out")
    assert done.returncode != 0
    assert "license BSD" in done.stdout + done.stderr
