"""The processor's knowledge of itself: books that balance, durations, levels."""

import threading

import pytest

from kat_otel.telemetry import LATENCY_BOUNDS, Books, Latencies, Telemetry, Work


def test_what_was_recovered_has_the_same_fates_as_what_was_acknowledged():
    books = Books()
    books.count("acknowledged", 100)
    books.count("recovered", 40)
    books.count("invalid", 3)
    books.count("forwarded", 90)
    books.count("summarised", 20)
    books.count("dropped", 5, "repeated")
    balance = books.balance()
    assert balance.pending == 25
    assert balance.counts["dropped:repeated"] == 5
    assert books.counts()["dropped", "repeated"] == 5
    assert books.counts()["recovered", ""] == 40


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (LATENCY_BOUNDS[3], 3), (LATENCY_BOUNDS[3] + 1e-9, 4), (1e9, len(LATENCY_BOUNDS))],
)
def test_a_duration_falls_into_the_bucket_whose_upper_bound_includes_it(seconds, bucket):
    latencies = Latencies()
    latencies.observe("decode", seconds)
    counts = latencies.read()["decode"].counts
    assert [at for at, count in enumerate(counts) if count] == [bucket]


def test_observations_of_several_threads_all_count():
    latencies = Latencies()

    def observe() -> None:
        for _ in range(2_000):
            latencies.observe("decode", 0.5)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = latencies.read()["decode"]
    assert sum(found.counts) == 8_000
    assert found.total == pytest.approx(4_000)


def test_a_stopwatch_times_the_parts_and_the_whole_and_tells_who_listens():
    now = [10.0]
    telemetry = Telemetry(clock=lambda: now[0])
    heard: list[Work] = []
    telemetry.on_work = heard.append
    watch = telemetry.watch("step", began=8.0)
    assert watch.lap("assemble") == 2.0
    now[0] = 10.5
    assert watch.lap("judge") == 0.5
    now[0] = 11.0
    assert watch.stop(spans=44) == 3.0
    assert heard == [Work("step", 8.0, 11.0, (("assemble", 10.0), ("judge", 10.5)), {"spans": 44})]
    totals = {name: found.total for name, found in telemetry.latencies.read().items()}
    assert totals == {"assemble": 2.0, "judge": 0.5, "step": 3.0}


def test_a_level_is_read_when_somebody_looks():
    telemetry = Telemetry()
    held = [0]
    telemetry.gauges.set("log_bytes", lambda: held[0])
    held[0] = 4096
    assert telemetry.gauges.read() == {"log_bytes": 4096.0}
