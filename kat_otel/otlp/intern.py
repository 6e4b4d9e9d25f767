"""Texts by their bytes: what the compiled walker looks up, filled from Python.

Every :class:`~kat_otel.spans.StringTable` that requests are decoded into has one
:class:`Interner`. Walkers read it without a lock, in many threads; who meets new texts adds
them under the lock and walks again. The arrays only grow: a slot is written after what it points
to, and a text counts as found only when all its bytes are equal, so a reader that comes too
early sees a missing text, never a wrong one.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import DecodeError
from kat_otel.kernels import family
from kat_otel.otlp.memory import address_of
from kat_otel.otlp.texts import PROBES, insert
from kat_otel.spans import UNKNOWN, SpanKind, StringTable

__all__ = ["Interner", "SharedStrings", "Tables"]

_FIRST_TEXTS: Final = 1_024
_FIRST_BYTES: Final = 65_536
_PADDING: Final = 8  # the walker compares whole words, and may read this far past a text


class Tables:
    """One state of the arrays; what a walker was given stays valid.

    Attributes:
        places: the walker's arguments SLOTS to TEXT_KIND, int64.
    """

    def __init__(self, texts: int, size: int, seed: int) -> None:
        bits = max(8, (4 * texts - 1).bit_length())  # at most a quarter of the slots is taken
        self.slots = np.zeros((1 << bits) + PROBES, np.uint64)
        self.texts = np.zeros(size, np.uint8)
        self.begins = np.zeros(texts, np.int64)
        self.lengths = np.zeros(texts, np.int32)
        self.families = np.full(texts, UNKNOWN, np.int32)
        self.kinds = np.zeros(texts, np.uint8)
        arrays = (self.texts, self.begins, self.lengths, self.families, self.kinds)
        at = [address_of(self.slots), 64 - bits, seed, *map(address_of, arrays)]
        self.places = np.array(at, np.int64)

    def copy_from(self, other: Tables, size: int) -> None:
        """Takes over the texts of a smaller one, ``size`` bytes of them, but no slots."""
        room = len(other.lengths)
        self.texts[:size] = other.texts[:size]
        self.begins[:room] = other.begins
        self.lengths[:room] = other.lengths
        self.families[:room] = other.families
        self.kinds[:room] = other.kinds

    def insert(self, order: NDArray[np.int64]) -> None:
        """Gives slots to texts whose bytes are there, by their indices."""
        slots, shift, seed, texts, begins, lengths, _, _ = self.places.tolist()
        limit = texts + len(self.texts)
        insert(address_of(order), len(order), limit, seed, slots, shift, texts, begins, lengths)


_adopting = threading.Lock()


class Interner:
    """The hash table of one string table."""

    def __init__(self, strings: StringTable) -> None:
        self.strings = strings
        self._seed = secrets.randbits(62)  # nobody outside can make texts collide
        self._lock = threading.Lock()
        self._bytes = 0
        self._entered: list[NDArray[np.int64]] = []
        self.tables = Tables(_FIRST_TEXTS, _FIRST_BYTES, self._seed)

    @staticmethod
    def of(strings: StringTable) -> Interner:
        """Returns the interner of ``strings``, made on first use."""
        found = strings.companion
        if not isinstance(found, Interner):
            with _adopting:
                found = strings.companion
                if not isinstance(found, Interner):
                    found = strings.companion = Interner(strings)
        return found

    def add(self, names: Iterable[bytes], kernels: Iterable[bytes]) -> None:
        """Enters new texts.

        Args:
            names: UTF-8 bytes of texts.
            kernels: names of kernels, whose families are entered with them.

        Raises:
            DecodeError: a text is not UTF-8.
        """
        texts = [_decoded(name) for name in names]
        relatives = {text: family(text) for text in map(_decoded, kernels)}
        with self._lock:
            self._enter(dict.fromkeys([*texts, *relatives, *relatives.values()]))
            add, families = self.strings.add, self.tables.families
            for text, relative in relatives.items():
                families[add(text)] = add(relative)

    def _enter(self, texts: Iterable[str]) -> None:
        indices = [(self.strings.add(text), text) for text in texts]
        lengths = self.tables.lengths
        new = [(at, text) for at, text in indices if at >= len(lengths) or not lengths[at]]
        if not new:
            return
        raw = [text.encode() for _, text in new]
        whole = b"".join(raw)
        tables = self._grown(max(at for at, _ in new), len(whole))
        order = np.array([at for at, _ in new], np.int64)
        sizes = np.fromiter(map(len, raw), np.int64, len(raw))
        tables.texts[self._bytes : self._bytes + len(whole)] = np.frombuffer(whole, np.uint8)
        tables.begins[order] = self._bytes + np.cumsum(sizes) - sizes
        tables.kinds[order] = [_hinted(text) for _, text in new]
        tables.lengths[order] = sizes
        self._bytes += len(whole)
        self._entered.append(order)
        tables.insert(order)

    def _grown(self, index: int, more: int) -> Tables:
        tables = self.tables
        room = len(tables.lengths)
        wanted = self._bytes + more + _PADDING
        if index < room and wanted <= len(tables.texts):
            return tables
        texts = room
        while texts <= index:
            texts *= 2
        size = len(tables.texts)
        while size < wanted:
            size *= 2
        # All arrays anew: a walker under way must find in its arrays whatever its slots point to.
        grown = Tables(texts, size, self._seed)
        grown.copy_from(tables, self._bytes)
        for order in self._entered:
            grown.insert(order)
        self._entered = [np.concatenate([np.empty(0, np.int64), *self._entered])]
        self.tables = grown
        return grown


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"a text is not UTF-8 ({error}): not an OTLP trace message") from error


def _hinted(text: str) -> int:
    """Returns the kind of a span of this name on a stream, if the name tells it, else 0."""
    lower = text.lower()
    if "memcpy" in lower:
        return SpanKind.MEMCPY
    return SpanKind.MEMSET if "memset" in lower else 0


class SharedStrings:
    """The string table that a receiver's threads decode into, begun anew when it is full.

    Spans that were decoded before keep the old table alive, and :func:`kat_otel.spans.concat`
    joins tables of both.
    """

    def __init__(self, max_strings: int = 1_000_000, max_bytes: int = 256 * 2**20) -> None:
        self._max_strings = max_strings
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._strings = StringTable()

    def current(self) -> StringTable:
        """Returns the table to decode the next request into."""
        strings = self._strings
        if self._full(strings):
            with self._lock:
                if self._full(self._strings):
                    self._strings = StringTable()
                strings = self._strings
        return strings

    def _full(self, strings: StringTable) -> bool:
        # What the protobuf library read has no place in the walker's tables, but in the memory.
        return len(strings) > self._max_strings or strings.size_bytes > self._max_bytes
