"""A real Kafka broker: one node, KRaft, jars from Maven Central, data in the test's folder.

    python -m tests.integration.kafka  # fetches the jars into the cache, prints the class path

``KAT_MAVEN`` names another Maven repository. Needs Java 17 on PATH, or in JAVA_HOME.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.servers import CACHE, free_ports

JARS = Path(__file__).with_name("kafka-jars.txt")
PARTITIONS = 4

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
num.partitions={partitions}
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=16777216
"""


@dataclass(frozen=True)
class Broker:
    """A running broker."""

    endpoint: str
    data: Path

    def partitions(self, topic: str) -> dict[int, int]:
        """Bytes of each partition that holds something, as they lie on the broker's disk."""
        sizes = {
            int(folder.name.rpartition("-")[2]): sum(f.stat().st_size for f in folder.glob("*.log"))
            for folder in self.data.glob(f"{topic}-*")
        }
        return {partition: size for partition, size in sorted(sizes.items()) if size}


def java() -> str:
    """The Java to run the broker with."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found is None or not Path(found).exists():
        pytest.skip("no Java for the Kafka broker: apt-get install openjdk-17-jre-headless")
    return found


def class_path() -> str:
    """The broker's jars, fetched into the cache if they are not there yet.

    Raises:
        OSError: the repository cannot be reached.
        ValueError: a file is not the one that the list names.
    """
    folder = CACHE / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line.split() for line in JARS.read_text().splitlines() if not line.startswith("#")]
    with ThreadPoolExecutor(8) as pool:
        return os.pathsep.join(pool.map(lambda line: _jar(folder, *line), lines))


def _jar(folder: Path, checksum: str, path: str) -> str:
    file = folder / Path(path).name
    if not file.exists() or _checksum(file.read_bytes()) != checksum:
        repository = os.environ.get("KAT_MAVEN", "https://repo1.maven.org/maven2").rstrip("/")
        with urllib.request.urlopen(f"{repository}/{path}", timeout=60) as response:
            content = response.read()
        if _checksum(content) != checksum:
            raise ValueError(f"{repository}/{path} has another checksum than {JARS.name} says")
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.replace(file)  # another test run may fetch the same
    return str(file)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def broker_command(folder: Path) -> tuple[list[str], str]:
    """Formats an empty broker's storage.

    Returns:
        The command that starts it, and ``host:port`` of the broker.
    """
    folder.mkdir()
    broker, controller = (f"127.0.0.1:{port}" for port in free_ports(2))
    settings = folder / "server.properties"
    text = _SETTINGS.format(
        broker=broker, controller=controller, data=folder / "data", partitions=PARTITIONS
    )
    settings.write_text(text)
    run = [
        java(),
        "-Xmx512m",
        "-XX:TieredStopAtLevel=1",  # it starts faster and has little to do
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
        "-cp",
        class_path(),
    ]
    cluster = "KatOtelTestsKRaft00001"
    formatting = ["format", "--standalone", "--cluster-id", cluster, "--config", str(settings)]
    done = subprocess.run(
        [*run, "kafka.tools.StorageTool", *formatting],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [*run, "kafka.Kafka", str(settings)], broker


if __name__ == "__main__":
    print(class_path())  # noqa: T201 - that is what it is run for
