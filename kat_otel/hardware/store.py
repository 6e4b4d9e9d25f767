"""What hardware said lately, in bounded memory, found by device, host, rank and time.

Receivers' threads add, the judging thread looks up; one lock guards it all, held for the time of
one request. Nothing here is durable: requests are passed on from the log in any case, and what a
restart forgets comes again with the next scrape.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from kat_otel.config import HardwareConfig
from kat_otel.hardware.decode import Alias, Point, read_logs, read_metrics
from kat_otel.hardware.identity import device_key, globally_unique, hosts_agree, short_host
from kat_otel.hardware.readings import GPU_SIGNALS, SIGNALS, Reading
from kat_otel.hardware.series import Series, SeriesKey, Window
from kat_otel.spans import UNKNOWN

__all__ = ["HardwareStore", "Wanted"]

_MOST_POINTS: Final = 4_000_000
"""Points remembered; at 16 bytes each, 64 MB."""
_POINTS_A_SERIES: Final = 600
_LEAST_POINTS: Final = 8
_MOST_ALIASES: Final = 100_000
_SAME_HOST: Final = 4_096
"""Series of one host or device that are looked through, at most."""


class Wanted(NamedTuple):
    """A rank whose readings are asked for: where it runs."""

    rank: int
    host: str
    hardware_id: str


class HardwareStore:
    """Readings of the last ``config.keep`` seconds.

    Args:
        config: ``max_series``, ``keep`` and ``window``.
        most_points: points remembered over all series.

    Attributes:
        counts: points kept and skipped, by reason.
    """

    def __init__(self, config: HardwareConfig, *, most_points: int = _MOST_POINTS) -> None:
        self._config = config
        self._most_points = most_points
        self._keep_ns = round(config.keep * 1e9)
        self._slack_ns = round(config.window * 1e9)
        self._lock = threading.Lock()
        self._series: OrderedDict[SeriesKey, Series] = OrderedDict()  # the latest written last
        self._places: defaultdict[str, dict[SeriesKey, Series]] = defaultdict(dict)
        self._aliases: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._points = 0
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._series)

    @property
    def points(self) -> int:
        """Points remembered now."""
        return self._points

    def add(self, signal: Literal["metrics", "logs"], data: bytes) -> int:
        """Takes a request, and keeps what it says about hardware; odd content is counted.

        Args:
            signal: what ``data`` is.
            data: an OTLP export request, protobuf.

        Returns:
            How many points were kept.
        """
        counts: Counter[str] = Counter()
        read = read_metrics if signal == "metrics" else read_logs
        points, aliases = read(data, counts)
        with self._lock:
            for alias in aliases:
                self._learn(alias)
            kept = sum(self._take(point, counts) for point in points)
            counts["kept"] += kept
            self._forget(counts)
            self.counts.update(counts)
        return kept

    def lookup(
        self,
        *,
        instance: str,
        hosts: Sequence[str],
        hardware_ids: Sequence[str],
        ranks: Sequence[int],
        begin_ns: int,
        end_ns: int,
    ) -> list[Reading]:
        """Returns what is known of these ranks and their hosts around an incident.

        Args:
            instance: what the ranks belong to; what another instance said of its processes
                is left out.
            hosts, hardware_ids, ranks: one entry a rank, ``""`` where not known.
            begin_ns, end_ns: of the incident, Unix ns. Readings up to ``config.window`` outside
                of it belong to it; what is older is told apart as ``before``.
        """
        wanted = [Wanted(*w) for w in zip(ranks, hosts, hardware_ids, strict=True)]
        window = Window(begin_ns, max(begin_ns, end_ns), self._slack_ns)
        with self._lock:
            found = list(self._found(instance, wanted, window))
        return sorted(found, key=lambda r: (r.rank, r.host, r.signal, r.phase, r.begin_ns))

    def _take(self, point: Point, counts: Counter[str]) -> bool:
        key = point.key
        on_gpu = key.signal in GPU_SIGNALS
        if not (key.device or key.pci or (key.instance and key.rank != UNKNOWN)):
            if on_gpu:
                counts["no device"] += 1
                return False
            if not key.host:
                counts["no host"] += 1
                return False
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(key.signal, point.mode)
            for place in _places(key):
                self._places[place][key] = series
        elif series.mode != point.mode:
            counts["changed type"] += 1
            return False
        else:
            self._series.move_to_end(key)
        self._points += series.add(point.time_ns, point.value, point.start_ns, point.text)
        share = self._most_points // len(self._series)
        limit = min(max(share // 2, _LEAST_POINTS), _POINTS_A_SERIES)
        self._points -= series.trim(limit, self._keep_ns)
        return True

    def _forget(self, counts: Counter[str]) -> None:
        while self._series and (
            len(self._series) > self._config.max_series or self._points > self._most_points
        ):
            key, series = self._series.popitem(last=False)
            self._points -= len(series)
            counts["series forgotten"] += 1
            for place in _places(key):
                there = self._places[place]
                del there[key]
                if not there:
                    del self._places[place]

    def _learn(self, alias: Alias) -> None:
        self._aliases[short_host(alias.host), alias.pci] = alias.device
        self._aliases.move_to_end((short_host(alias.host), alias.pci))
        while len(self._aliases) > _MOST_ALIASES:
            self._aliases.popitem(last=False)

    def _found(self, instance: str, wanted: list[Wanted], window: Window) -> Iterator[Reading]:
        devices: defaultdict[str, list[Wanted]] = defaultdict(list)
        for who in wanted:
            if who.hardware_id:
                devices[device_key(who.hardware_id)].append(who)
            if who.rank != UNKNOWN and instance:
                for key, series in self._at(f"rank {instance} {who.rank}"):
                    yield from _readings(key, series, window, who)
        yield from self._of_devices(instance, devices, window)
        for host in dict.fromkeys(who.host for who in wanted if who.host):
            yield from self._of_host(host, instance, devices, window)

    def _of_devices(
        self, instance: str, devices: Mapping[str, list[Wanted]], window: Window
    ) -> Iterator[Reading]:
        for device, owners in devices.items():
            for key, series in self._at(f"device {device}"):
                for who in owners:
                    # a worker's process is not that of another who shares its GPU
                    of_process = key.signal not in GPU_SIGNALS and key.rank != UNKNOWN
                    if of_process and (key.instance, key.rank) != (instance, who.rank):
                        continue
                    if globally_unique(device) or not key.host or hosts_agree(key.host, who.host):
                        yield from _readings(key, series, window, who)

    def _of_host(
        self, host: str, instance: str, devices: Mapping[str, list[Wanted]], window: Window
    ) -> Iterator[Reading]:
        for key, series in self._at(f"host {short_host(host)}"):
            if not hosts_agree(key.host, host) or key.instance not in {"", instance}:
                continue
            if not key.pci:
                yield from _readings(key, series, window, Wanted(UNKNOWN, host, ""))
                continue
            device = self._aliases.get((short_host(host), key.pci), "")
            for who in devices.get(device, ()):
                if hosts_agree(host, who.host):
                    yield from _readings(key, series, window, who)

    def _at(self, place: str) -> Iterable[tuple[SeriesKey, Series]]:
        there = self._places.get(place)  # not [], which would make it
        return () if there is None else list(there.items())[:_SAME_HOST]


def _places(key: SeriesKey) -> tuple[str, ...]:
    """Under what a series is looked for: its device, else its rank, else its host."""
    if key.device:
        return (f"device {key.device}",)
    if key.instance and key.rank != UNKNOWN:
        return (f"rank {key.instance} {key.rank}",)
    return (f"host {short_host(key.host)}",)


def _readings(key: SeriesKey, series: Series, window: Window, who: Wanted) -> Iterator[Reading]:
    for said in series.read(window):
        if SIGNALS[key.signal].form == "event" and not said.value:
            continue
        yield Reading(
            signal=key.signal,
            phase=said.phase,
            value=said.value,
            begin_ns=said.begin_ns,
            end_ns=said.end_ns,
            samples=said.samples,
            rank=who.rank,
            host=who.host,
            device=who.hardware_id,
            detail=said.detail or key.detail,
            text=said.text,
        )
