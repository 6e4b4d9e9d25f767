"""Sentences about hardware readings. Log lines are never quoted: what they say is told in ours."""

from __future__ import annotations

from datetime import UTC, datetime

from kat_otel.hardware.log_patterns import XID_WORDS
from kat_otel.hardware.readings import SIGNALS, Reading, Signal, clean_text
from kat_otel.spans import UNKNOWN
from kat_otel.ttad.deviations import Observation
from kat_otel.verdict import NOTHING_UNUSUAL, Evidence

__all__ = ["clean_evidence", "deviation_evidence"]

_NAME = 64


def deviation_evidence(number: int, seen: Observation) -> Evidence:
    """Returns the fact that a signal deviates: where, when, how much, and what is usual."""
    reading = seen.reading
    spec = SIGNALS[reading.signal]
    if spec.form == "event":
        words = spec.words
        if reading.signal == "xid":
            meaning = XID_WORDS.get(reading.detail)
            words = f"Xid {clean_text(reading.detail, 8)}" + (f" ({meaning})" if meaning else "")
        elif reading.detail:
            words += f" ({clean_text(reading.detail, 24)})"
        text = f"{_where(reading)}: {words} {_when(reading)}"
        return _evidence(number, text, reading, None)
    said = [f"{spec.words}{_which(reading)} {_amount(reading.signal, reading.value)}"]
    if seen.peers is not None:
        others = "the peer" if seen.peer_count == 1 else f"the {seen.peer_count} peers' median"
        said.append(f"{others} {_amount(reading.signal, seen.peers)}")
    if seen.before is not None:
        said.append(f"before the onset {_amount(reading.signal, seen.before)}")
    expected = seen.peers if seen.peers is not None else seen.before
    text = f"{_where(reading)}: {'; '.join(said)} ({_when(reading)})"
    return _evidence(number, text, reading, 0.0 if expected is None else expected)


def clean_evidence(number: int, component: str, seen: list[Observation]) -> Evidence:
    """Returns the fact that signals which would show a component to be sick are unremarkable."""
    words = ", ".join(dict.fromkeys(SIGNALS[o.rule.signal].words for o in seen))
    first = seen[0]
    usual = first.peers if first.peers is not None else first.before
    text = f"{_where(first.reading)}: {NOTHING_UNUSUAL} {component}: {words}"
    return _evidence(number, f"{text} ({_when(first.reading)})", first.reading, usual)


def _evidence(number: int, text: str, reading: Reading, expected: float | None) -> Evidence:
    return Evidence(
        id=f"H{number}",
        text=text,
        signal=reading.signal,
        value=round(reading.value, 4),
        expected=None if expected is None else round(expected, 4),
        unit=SIGNALS[reading.signal].unit,
    )


def _where(reading: Reading) -> str:
    host = clean_text(reading.host, _NAME)
    device = clean_text(reading.device, _NAME)
    if reading.rank == UNKNOWN:
        return f"host {host}"
    place = ", ".join(filter(None, (f"rank {reading.rank}", host)))
    return f"{device} ({place})" if device else place


def _which(reading: Reading) -> str:
    # Names of interfaces and disks tell something; what only keeps two metrics apart does not.
    named = reading.signal.startswith(("net_", "ib_", "disk_")) and reading.detail
    return f" on {clean_text(reading.detail, 24)}" if named else ""


def _when(reading: Reading) -> str:
    begin, end = (
        datetime.fromtimestamp(ns / 1e9, UTC).strftime("%H:%M:%S")
        for ns in (reading.begin_ns, reading.end_ns)
    )
    return f"at {end} UTC" if begin == end else f"{begin} to {end} UTC"


def _amount(signal: Signal, value: float) -> str:
    spec = SIGNALS[signal]
    if signal.startswith("row_remap_"):
        return "yes" if value >= 0.5 else "no"
    if spec.unit == "{cpu}":
        return f"{value:.2g} CPUs"
    if spec.form == "share":
        return f"{100 * value:.3g} % of the time"
    if spec.form == "count":
        return f"{value:,.0f}"
    shown = {"MHz": " MHz", "W": " W", "Cel": " °C", "{lane}": " lanes", "MiBy": " MiB"}
    unit = shown.get(spec.unit, "")
    return f"{value:,.4g}{unit}" if value < 1000 else f"{value:,.0f}{unit}"
