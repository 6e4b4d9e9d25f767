"""What the rules cost a real Prometheus at 10,000 ranks, and what the recorded sums save.

``python bench/prometheus_rules.py [RANKS]``. promtool makes two blocks of history: ten minutes of
the counters of every rank, scraped each 15 s, on which what is recorded of them is evaluated; and
six hours of the time that each rank caused, a sample a minute, which the tables by host of the
fleet's dashboard ask for, with the series that is recorded of it. Times are the best of five, over
HTTP.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.integration.prometheus import Prometheus
from tests.integration.servers import Servers
from tests.rules.promtool import promtool
from tests.rules.reading import ALERTS, RECORDS

PER_HOST = 8
PER_INSTANCE = 256
PARTS = ("compute", "wait", "transfer", "host")
_HOURS = 6
_END = int(time.time()) // 60 * 60 - 3600


def counters(rank: int) -> Iterator[tuple[str, float]]:
    """Yields the counters of a rank, with the labels that they have, and their growth a second."""
    who = f'kat_instance_id="i{rank // PER_INSTANCE}",kat_rank="{rank % PER_INSTANCE}"'
    yield f"kat_rank_caused_gpu_time_seconds_total{{{who},{place(rank)}}}", 0.01
    for part in PARTS:
        yield f'kat_rank_step_time_seconds_total{{{who},kat_part="{part}"}}', 0.05
    for end in ("sum", "count"):
        yield f"kat_collective_arrival_skew_seconds_{end}{{{who}}}", 2.0


def place(rank: int) -> str:
    """Where a rank stands, as labels."""
    host = rank // PER_HOST
    return f'host_name="node-{host}",kat_rack="rack-{host // 8}",kat_switch="leaf-{host // 32}"'


def recent(ranks: int) -> Iterator[str]:
    """Yields ten minutes of everything."""
    times = range(_END - 600, _END + 1, 15)
    for rank in range(ranks):
        for series, growth in counters(rank):
            for at in times:
                yield f"{series} {growth * (at - _END + 90_000):.3f} {at}\n"
        who = f'kat_instance_id="i{rank // PER_INSTANCE}",kat_rank="{rank % PER_INSTANCE}"'
        for at in times:
            yield f"kat_rank_info{{{who},{place(rank)}}} 1 {at}\n"


def history(ranks: int) -> Iterator[str]:
    """Yields hours of what the tables by host ask for."""
    times = range(_END - _HOURS * 3600, _END - 600, 60)
    for rank in range(ranks):
        series, growth = next(counters(rank))
        for at in times:
            yield f"{series} {growth * (at - _END + 90_000):.3f} {at}\n"
    for host in range(ranks // PER_HOST):
        rank = host * PER_HOST
        labels = f'kat_instance_id="i{rank // PER_INSTANCE}",{place(rank)}'
        for at in times:
            yield f"kat_host:caused_lost_gpus:rate5m{{{labels}}} {0.01 * PER_HOST} {at}\n"


def filled(folder: Path, ranks: int) -> None:
    """Makes the blocks of a Prometheus."""
    for name, lines in (("recent", recent(ranks)), ("history", history(ranks))):
        text = folder / f"{name}.om"
        with text.open("w") as file:
            file.writelines(lines)
            file.write("# EOF\n")
        done = promtool("tsdb", "create-blocks-from", "openmetrics", text, folder / "tsdb")
        assert done.returncode == 0, done.stderr
        text.unlink()


def best(prometheus: Prometheus, expression: str) -> tuple[float, int]:
    """Returns the seconds of an instant query, the best of five, and how many series it returns."""
    took: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        found = prometheus.now(expression, _END)
        took.append(time.perf_counter() - began)
    return min(took), len(found)


def main(ranks: int = 10_000) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled(folder, ranks)
        servers = Servers(folder)
        try:
            prometheus = Prometheus.start(servers, {})
            print(f"{ranks:,} ranks, {PER_INSTANCE} of an instance, {PER_HOST} of a host")
            for record, expression in RECORDS.items():
                seconds, series = best(prometheus, expression)
                if series:  # the others are recorded of few
                    print(f"{1e3 * seconds:8.1f} ms  {series:6,} series  {record}")
            total = sum(best(prometheus, rule["expr"])[0] for rule in ALERTS.values())
            print(f"{1e3 * total:8.1f} ms  all {len(ALERTS)} alerts, nothing wrong")
            raw = "sum by (host_name) (increase(kat_rank_caused_gpu_time_seconds_total[6h]))"
            summed = "sum by (host_name) (sum_over_time(kat_host:caused_lost_gpus:rate5m[6h])) * 60"
            for what, expression in (("of ranks", raw), ("recorded", summed)):
                seconds, series = best(prometheus, expression)
                print(f"{1e3 * seconds:8.1f} ms  {series:6,} hosts   six hours by host, {what}")
        finally:
            servers.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
