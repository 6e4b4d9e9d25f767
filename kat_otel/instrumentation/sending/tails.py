"""Which spans of a step look alike on the wire, and the bytes that they share.

Kept from step to step: an engine launches the same work again and again.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel import fields
from kat_otel.spans import SpanKind, SpanTable, StringTable
from kat_otel.wire import delimited, span_head, text_attribute, value_attribute

__all__ = [
    "KEY_OF",
    "NUMBERS",
    "SHARED",
    "Form",
    "Layout",
    "Layouts",
    "number_attribute",
    "tail_of",
]

SHARED: Final[tuple[str, ...]] = (
    "name",
    "kind",
    "grid",
    "block",
    "group",
    "stream",
    "thread",
    "graph",
)
"""Columns with few distinct values in a step: they make the tail."""

NUMBERS: Final[tuple[str, ...]] = ("correlation", "graph_node", "bytes", "sequence")
"""Columns with many: varints of a width that holds the largest of them."""

KEY_OF: Final = {column: key for key, (column, _) in fields.SPAN_INTS.items()}
"""Integer column -> its attribute."""

_MAX_TAILS: Final = 16_384
_MAX_LAYOUTS: Final = 4  # prefill and decode take turns

# Odd factors that spread a row's shared values over 64 bits; equality is checked afterwards.
_FACTORS: Final = np.random.default_rng(25).integers(1, 2**63, 9, np.uint64) | np.uint64(1)


class Form(NamedTuple):
    """Spans of one size.

    Attributes:
        numbers: which of :data:`NUMBERS` they have, a bit each.
        size: of a span, with tag and length.
        tails: the different tails, uint8 ``(tails, bytes)``.
        first, last: rows of this form in the layout's order; the last is excluded.
    """

    numbers: int
    size: int
    tails: NDArray[np.uint8]
    first: int
    last: int


class Layout(NamedTuple):
    """How rows are packed: it holds for the next step if that launches the same work.

    Attributes:
        strings, shared, widths: what it was made for.
        order: in which the rows are packed: those of a form together.
        size: of each row's span, in that order, with tag and length.
        tail: of each row, in that order: its place among the tails of its form.
        forms: in order.
    """

    strings: StringTable
    shared: list[NDArray[Any]]
    widths: list[int]
    order: NDArray[np.int64]
    size: NDArray[np.int64]
    tail: NDArray[np.int64]
    forms: list[Form]

    def holds(self, table: SpanTable, shared: list[NDArray[Any]], widths: list[int]) -> bool:
        """Returns whether the rows have the same shared values and widths as those before."""
        return (
            table.strings is self.strings
            and widths == self.widths
            and all(map(np.array_equal, shared, self.shared))
        )


class Layouts:
    """The last layouts, and the tails of their spans. Used by one thread."""

    def __init__(self) -> None:
        self._tails: dict[tuple[Any, ...], bytes] = {}
        self._known: dict[tuple[int, ...], bytes] = {}  # the same by the indices of the texts
        self._strings: StringTable | None = None  # whose indices
        self._last: deque[Layout] = deque(maxlen=_MAX_LAYOUTS)

    def of(
        self, table: SpanTable, shared: list[NDArray[Any]], widths: list[int], head: int
    ) -> Layout:
        """Returns a layout that holds: one of the last, or a new one.

        Args:
            table: whose texts the columns name.
            shared: :data:`SHARED` columns of the rows, and which :data:`NUMBERS` each row has.
            widths: of the varints of each of NUMBERS, and bytes of what all rows have beside.
            head: bytes of a span before its numbers.
        """
        for layout in self._last:
            if layout.holds(table, shared, widths):
                return layout
        found, which = _distinct(shared)
        numbers = shared[-1][found].astype(np.int64)
        distinct = zip(*(column[found].tolist() for column in shared), strict=True)
        tails = [self._tail(table, values) for values in distinct]
        tail_size = np.array([len(tail) for tail in tails])
        size = head + widths[-1] + _extra_sizes(numbers, widths[:-1]) + tail_size
        order, place, forms = _forms(numbers << 32 | tail_size, which, size, tails, numbers)
        which = which[order]
        layout = Layout(table.strings, shared, widths, order, size[which], place[which], forms)
        self._last.appendleft(layout)
        return layout

    def _tail(self, table: SpanTable, values: tuple[int, ...]) -> bytes:
        """Returns the tail of spans with these shared values; the last says which numbers."""
        kind, stream = values[1], values[5]
        says_kind = kind != SpanKind.OTHER or stream >= 0 or bool(values[-1] & 1)
        return self.tail(table, values[:-1], says_kind=says_kind)

    def tail(self, table: SpanTable, values: tuple[int, ...], *, says_kind: bool) -> bytes:
        """Returns :func:`tail_of` of the same, from before if there was one."""
        strings = table.strings
        if strings is not self._strings or len(self._known) >= _MAX_TAILS:
            self._known, self._strings = {}, strings
        place = (*values, says_kind)
        tail = self._known.get(place)
        if tail is not None:
            return tail
        name, kind, grid, block, group, stream, thread, graph = values
        texts = strings[name], strings[grid], strings[block], strings[group]
        key = (*texts, kind, stream, thread, graph, says_kind)
        tail = self._tails.get(key)
        if tail is None:
            if len(self._tails) >= _MAX_TAILS:
                self._tails.clear()
            tail = self._tails[key] = tail_of(table, values, says_kind=says_kind)
        self._known[place] = tail
        return tail


def tail_of(table: SpanTable, values: tuple[int, ...], *, says_kind: bool) -> bytes:
    """Returns what spans with the same values in the shared columns have in common."""
    said: dict[str, int] = dict(zip(SHARED, values, strict=True))
    parts = [span_head(table.strings[said["name"]], said["kind"], says_kind=says_kind)]
    parts += (
        text_attribute(key, table.strings[said[column]])
        for key, column in fields.SPAN_TEXTS.items()
        if table.strings[said[column]]
    )
    parts += (
        value_attribute(b"\x4a", KEY_OF[column], said[column])
        for column in ("stream", "thread", "graph")
        if said[column] >= 0
    )
    return b"".join(parts)


def _distinct(columns: list[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns rows with the distinct combinations of values, and each row's place among them."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column, factor in zip(columns, _FACTORS, strict=True):
        mixed ^= mixed >> np.uint64(29)
        mixed += column.astype(np.uint64) * factor
    _, found, which = np.unique(mixed, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    of_row = found[which]
    if all(bool((column[of_row] == column).all()) for column in columns):
        return found, which
    # Two combinations met in 64 bits: told apart the slow way.
    stacked = np.stack([column.astype(np.int64) for column in columns], axis=1)
    _, found, which = np.unique(stacked, axis=0, return_index=True, return_inverse=True)
    return found, which.reshape(-1)


def _forms(
    key: NDArray[np.int64],
    which: NDArray[np.int64],
    size: NDArray[np.int64],
    tails: list[bytes],
    numbers: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Form]]:
    """Returns the order in which rows of one form stand together, and the forms.

    Args:
        key: of each tail: equal for those whose spans look alike.
        which: the tail of each row.
        size, tails, numbers: of each tail.

    Returns:
        The order of the rows, the place of each tail in its form, and the forms.
    """
    _, first, form = np.unique(key, return_index=True, return_inverse=True)
    form = form.reshape(-1)
    of_row = form[which]
    if len(first) < 2**15:
        of_row = of_row.astype(np.int16)  # sorted by radix
    order = np.argsort(of_row, kind="stable")
    ends: list[int] = np.cumsum(np.bincount(of_row, minlength=len(first))).tolist()
    members = np.split(np.argsort(form, kind="stable"), np.cumsum(np.bincount(form))[:-1])
    place = np.empty(len(tails), np.int64)
    forms: list[Form] = []
    for at, mine, begin, end in zip(first, members, [0, *ends[:-1]], ends, strict=True):
        place[mine] = np.arange(len(mine))
        chosen: list[int] = mine.tolist()
        texts = b"".join([tails[i] for i in chosen])
        matrix = np.frombuffer(texts, np.uint8).reshape(len(mine), -1)
        forms.append(Form(int(numbers[at]), int(size[at]), matrix, begin, end))
    return order, place, forms


def number_attribute(name: str, width: int) -> bytes:
    """Returns a column's attribute with room for a varint of ``width`` bytes at its end."""
    value = delimited(b"\x12", b"\x18" + bytes(width))
    return delimited(b"\x4a", delimited(b"\x0a", KEY_OF[name].encode()) + value)


def _extra_sizes(numbers: NDArray[np.int64], widths: list[int]) -> NDArray[np.int64]:
    sizes = np.zeros(len(numbers), np.int64)
    for bit, (name, width) in enumerate(zip(NUMBERS, widths, strict=True)):
        sizes += (numbers >> bit & 1) * len(number_attribute(name, width))
    return sizes
