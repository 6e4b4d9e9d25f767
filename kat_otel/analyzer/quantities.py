"""Numbers in sentences: which a text holds, with their units, and how one is written.

Two numbers are the same if value and unit are: ``2.1 ms`` and ``2,100 µs`` are, ``2 ms`` is not,
nor are ``2.1 times``. What cannot be read as a number and yet has digits is the same as nothing.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Final, NamedTuple

__all__ = ["Numbers", "Quantity", "amount_text", "numbers_in", "time_text"]


class Quantity(NamedTuple):
    """A number with its unit: durations in ns, ``%``, ``times``, other units as written."""

    value: Decimal
    unit: str


class Numbers(NamedTuple):
    """What a text says in digits and number words.

    Attributes:
        quantities: its numbers.
        ranks: what is said of ranks, ranges in full.
        names: words with digits in them: ids, aliases, names of models and parts.
        unread: digits that are none of these.
    """

    quantities: frozenset[Quantity]
    ranks: frozenset[int]
    names: frozenset[str]
    unread: str


_UNITS: Final[dict[str, tuple[str, Decimal]]] = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), ("ns", Decimal(1))),
    **dict.fromkeys(("us", "μs", "microsecond", "microseconds"), ("ns", Decimal(1000))),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), ("ns", Decimal(10**6))),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("ns", Decimal(10**9))),
    **dict.fromkeys(("min", "minute", "minutes"), ("ns", Decimal(60 * 10**9))),
    **dict.fromkeys(("hour", "hours"), ("ns", Decimal(3600 * 10**9))),
    **dict.fromkeys(("%", "percent", "per cent"), ("%", Decimal(1))),
    **dict.fromkeys(("times", "x", "×", "fold", "-fold"), ("times", Decimal(1))),
    "MHz": ("MHz", Decimal(1)),
    "GHz": ("MHz", Decimal(1000)),
    **dict.fromkeys(("W", "watt", "watts"), ("W", Decimal(1))),
    **dict.fromkeys(("°C", "C", "degrees"), ("°C", Decimal(1))),
    "CPUs": ("CPUs", Decimal(1)),
    **{
        unit: (unit, Decimal(1)) for unit in ("KiB", "MiB", "GiB", "KB", "MB", "GB", "GB/s", "MB/s")
    },
}
_WORDS: Final[dict[str, tuple[int, str]]] = {
    **{word: (n, "") for n, word in enumerate(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
         "twelve"), start=2)},
    **{word: (n, "") for n, word in enumerate(
        ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), start=3)},
    **{word: (n, "") for n, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2)
       for n in (10 * n,)},
    "dozen": (12, ""), "dozens": (12, ""), "hundred": (100, ""), "hundreds": (100, ""),
    "thousand": (1000, ""), "thousands": (1000, ""), "million": (10**6, ""), "zero": (0, ""),
    "twice": (2, "times"), "double": (2, "times"), "doubles": (2, "times"),
    "doubled": (2, "times"), "thrice": (3, "times"), "triple": (3, "times"),
    "triples": (3, "times"), "tripled": (3, "times"), "tenfold": (10, "times"),
    "half": (50, "%"), "halves": (50, "%"), "halved": (50, "%"), "quarter": (25, "%"),
}  # fmt: skip
_UNIT: Final = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_WHOLE: Final = rf"\d{{1,6}}(?![\d.]*\d|\s*(?:{_UNIT})(?![A-Za-z])|\s+more\b)"
_SPAN: Final = rf"{_WHOLE}(?:\s?(?:-|–|to|through)\s?{_WHOLE})?"
_TOKEN: Final = re.compile(
    rf"\branks?\s+(?P<ranks>{_SPAN}(?:(?:,|\s+and|\s+or|,\s+and|\s*&)\s*{_SPAN})*)"
    r"|(?P<spelt>\branks?\s+(?:number\s+)?(?:zero|one|two|three|four|five|six|seven|eight|nine|ten)\b)"
    r"|(?P<name>[A-Za-z_]+(?:-[A-Za-z_]+)*_?\d\w*)"
    r"|(?<![\w.])(?P<number>[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d{1,3})?)"
    rf"(?:\s*(?P<unit>{_UNIT})(?![A-Za-z])|(?:st|nd|rd|th)\b|(?![\w.]*\w))"
    rf"|\b(?P<word>{'|'.join(_WORDS)})\b",
    re.IGNORECASE,
)
_CASELESS: Final = {unit.casefold(): meaning for unit, meaning in _UNITS.items()}
_RANK_SPAN: Final = re.compile(r"(\d+)(?:\s?(?:-|–|to|through)\s?(\d+))?")
_WIDEST: Final = 1_000_000
"""Ranks in one range; a wider one is no range."""


def numbers_in(text: str) -> Numbers:
    """Returns all that a text says in numbers, spelt as it may be."""
    said = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/")
    quantities: set[Quantity] = set()
    ranks: set[int] = set()
    names: set[str] = set()
    rest: list[str] = []
    at = 0
    for token in _TOKEN.finditer(said):
        rest.append(said[at : token.start()])
        at = token.end()
        if token["ranks"]:
            ranks |= _ranks(token["ranks"])
        elif token["spelt"]:  # nobody writes ranks so: not read, lest it be read wrongly
            rest.append("0")
        elif token["name"]:
            names.add(token["name"])
        elif token["word"]:
            value, unit = _WORDS[token["word"].casefold()]
            quantities.add(Quantity(Decimal(value), unit))
        else:
            unit, factor = _unit(token["unit"])
            number = Decimal(token["number"].replace(",", ""))
            quantities.add(Quantity((number * factor).normalize(), unit))
    rest.append(said[at:])
    unread = "".join(c for c in "".join(rest) if c.isnumeric())
    return Numbers(frozenset(quantities), frozenset(ranks), frozenset(names), unread)


def time_text(ns: float) -> str:
    """Returns a duration in the unit that fits: ``2.10 ms``, ``31 µs``."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size:
            value = ns / size
            return f"{value:.2f} {unit}" if abs(value) < 10 else f"{value:.3g} {unit}"
    return f"{ns:.0f} ns"


def amount_text(value: float, unit: str | None) -> str:
    """Returns a fact's value with its unit; units that are not known are left out."""
    if unit == "ns":
        return time_text(value)
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    known = {"%": " %", "MHz": " MHz", "W": " W", "Cel": " °C", "MiBy": " MiB", "ms": " ms"}
    return shown + known.get(unit or "", "")


def _unit(written: str | None) -> tuple[str, Decimal]:
    if not written:
        return "", Decimal(1)
    return _UNITS.get(written) or _CASELESS[written.casefold()]


def _ranks(text: str) -> set[int]:
    found: set[int] = set()
    for first, last in _RANK_SPAN.findall(text):
        begin, end = int(first), int(last or first)
        if not begin <= end < begin + _WIDEST:
            return {begin, end}
        found |= set(range(begin, end + 1))
    return found
