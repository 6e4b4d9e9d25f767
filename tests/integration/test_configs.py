"""Every file in collector-config is one that the real collector takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.servers import CONFIG, binary

pytestmark = pytest.mark.integration

NOT_THE_COLLECTORS = {
    "builder.yaml",
    "builder-backends.yaml",
    "jaeger-memory.yaml",
    "kat-process.yaml",
}
FILES = sorted(file.name for file in CONFIG.glob("*.yaml"))
TIERS = [name for name in FILES if name not in NOT_THE_COLLECTORS]
ADDED_TO = {"agent-dcgm.yaml": ["agent.yaml"]}
"""Files that are no configuration without another one."""


def validate(*files: Path) -> subprocess.CompletedProcess[str]:
    arguments = [part for file in files for part in ("--config", str(file))]
    return subprocess.run(
        [binary("otelcol-kat"), "validate", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", TIERS)
def test_the_collector_takes_the_tier(name):
    done = validate(*(CONFIG / file for file in [*ADDED_TO.get(name, []), name]))
    assert done.returncode == 0, done.stderr


def test_all_tiers_are_there():
    wanted = (
        "agent agent-dcgm all-in-one backend gateway kafka-consumer kafka-producer load-balancing"
    )
    assert {f"{name}.yaml" for name in wanted.split()} == set(TIERS)


def test_the_validation_notices_a_misspelt_setting(tmp_path):
    broken = (CONFIG / "load-balancing.yaml").read_text().replace("routing_key", "routing_kee")
    (tmp_path / "broken.yaml").write_text(broken)
    done = validate(tmp_path / "broken.yaml")
    assert done.returncode != 0
    assert "routing_kee" in done.stderr


@pytest.mark.parametrize("name", TIERS)
def test_every_variable_of_a_tier_is_documented(name):
    text = (CONFIG / name).read_text()
    readme = (CONFIG / "README.md").read_text()
    live = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    variables = {part.split(":")[0].split("}")[0] for part in live.split("${env:")[1:]}
    undocumented = {variable for variable in variables if f"`{variable}`" not in readme}
    assert not undocumented
