"""OTLP requests as anybody might write them, at random: every field, any order, odd forms.

They are written byte by byte, because a library writes one form only. ``oddity`` is the share of
what exporters never do: overlong varints, fields twice, unknown fields, values before keys.
"""

from __future__ import annotations

import random
import struct

from kat_otel import fields, semconv
from kat_otel.errors import DecodeError
from kat_otel.spans import COLUMNS, SpanTable

TEXT_COLUMNS = ("name", "grid", "block", "group")
KEYS = [*fields.SPAN_INTS, *fields.SPAN_TEXTS, semconv.KERNEL_NAME, semconv.SPAN_KIND]
NAMES = [
    b"void gemm<int, 4>(float*)",
    b"gemm",
    b"Memcpy HtoD (Pinned -> Device)",
    b"memset",
    b"cudaLaunchKernel",
    b"12345678",
    b"1234567",
    "grüße".encode(),
    b"a" * 200,
    b"",
    b"ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
]
BAD_TEXTS = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"abcdefgh\x80"]


class Writer:
    """Writes fields, oddly if the dice say so."""

    def __init__(self, rng: random.Random, oddity: float) -> None:
        self.rng = rng
        self.oddity = oddity

    def odd(self, share: float = 1.0) -> bool:
        return self.rng.random() < self.oddity * share

    def varint(self, value: int, most: int = 10) -> bytes:
        groups = bytearray()
        while value >= 0x80:
            groups.append(value & 0x7F | 0x80)
            value >>= 7
        groups.append(value)
        if self.odd(0.02) and len(groups) < most:
            padding = self.rng.randint(1, most - len(groups))
            groups[-1] |= 0x80
            groups += b"\x80" * (padding - 1) + b"\x00"
        return bytes(groups)

    def tag(self, number: int, wire_type: int) -> bytes:
        return self.varint(number << 3 | wire_type, 5)

    def delimited(self, number: int, payload: bytes) -> bytes:
        return self.tag(number, 2) + self.varint(len(payload), 5) + payload

    def number(self, number: int, value: int) -> bytes:
        return self.tag(number, 0) + self.varint(value & (2**64 - 1))

    def fixed64(self, number: int, value: int) -> bytes:
        return self.tag(number, 1) + struct.pack("<Q", value)

    def unknown(self) -> bytes:
        number = self.rng.choice([17, 99, 1000, 2**29 - 1])
        form = self.rng.randrange(5)
        if form == 0:
            return self.number(number, self.rng.getrandbits(64))
        if form == 1:
            return self.fixed64(number, self.rng.getrandbits(64))
        if form == 2:
            return self.delimited(number, self.rng.randbytes(self.rng.randrange(6)))
        if form == 3:
            return self.tag(number, 5) + self.rng.randbytes(4)
        return self.tag(number, 3) + self.number(1, 5) + self.tag(number, 4)

    def message(self, parts: list[bytes], *, groups: bool = True) -> bytes:
        if self.odd(0.05):
            extra = self.unknown()
            if groups or not extra.endswith(self.tag(99, 4)):
                parts = [*parts, extra]
        if self.odd(0.05) and parts:
            parts = [*parts, self.rng.choice(parts)]
        if self.odd(0.2):
            self.rng.shuffle(parts)
        return b"".join(parts)


def text(write: Writer) -> bytes:
    rng = write.rng
    if write.odd(0.01):
        return rng.choice(BAD_TEXTS)
    if rng.random() < 0.7:
        return rng.choice(NAMES)
    return bytes(rng.choices(b"abc,0123", k=rng.randrange(40)))


def any_value(write: Writer, depth: int = 0) -> bytes:
    rng = write.rng
    form = rng.randrange(12) if write.odd() else rng.randrange(7)
    if form in {0, 1}:
        return write.delimited(1, text(write))
    if form in {2, 3}:
        return write.number(
            3,
            rng.choice(
                [0, 1, 7, 2**31 - 1, 2**31, 2**62, 2**63 - 1] + [-1, -(2**63)] * write.odd()
            ),
        )
    if form == 4:
        return write.number(2, rng.choice([0, 1, 1] + [2] * write.odd()))
    if form == 5:
        return write.tag(4, 1) + struct.pack("<d", rng.choice([0.0, -1.5, float("inf")]))
    if form == 6:
        return write.delimited(7, rng.randbytes(rng.randrange(20)))
    if form == 7:
        return b""
    if form == 8:
        return any_value(write) + any_value(write)
    if form == 9 and rng.random() < 0.05:
        deep = b""
        for _ in range(rng.choice([5, 30, 45, 46, 47, 48, 49, 50, 60])):
            deep = write.delimited(5, write.delimited(1, deep))
        return deep
    if depth < 3:
        inner = any_value(write, depth + 1)
        if form == 10:
            return write.delimited(5, write.delimited(1, inner))
        return write.delimited(6, write.delimited(1, key_value(write, depth + 1)))
    return b""


OTHER_KEYS = ["x", "y", "", "kat.steq", "k" * 130]


def key_value(write: Writer, depth: int = 0, key: str = "z") -> bytes:
    rng = write.rng
    value = any_value(write, depth)
    if not write.odd(0.2):  # mostly of the type that the key wants
        if key in fields.SPAN_INTS:
            value = write.number(3, rng.choice([0, 1, 300, 2**31 - 1, 2**40]))
        elif key == semconv.SPAN_KIND:
            value = write.delimited(1, rng.choice([*fields.KIND_OF_NAME, "strange"]).encode())
        elif key == semconv.KERNEL_NAME:
            value = write.delimited(1, rng.choice([*NAMES[:2], NAMES[-1]]))
        elif key in KEYS:
            value = write.delimited(1, text(write))
    parts = [write.delimited(1, key.encode()), write.delimited(2, value)]
    return write.message(parts)


def span(write: Writer) -> bytes:
    rng = write.rng
    start = rng.choice([0, 1, 1_770_000_000 * 10**9])
    duration = rng.choice([0, 5, 10**6])
    name = text(write) if rng.random() < 0.3 else NAMES[1]
    parts = [
        write.delimited(1, rng.randbytes(16)),
        write.delimited(2, rng.randbytes(8)),
        write.delimited(4, rng.randbytes(8)) if rng.random() < 0.8 else write.delimited(4, b""),
        write.delimited(5, name),
        write.number(6, 1),
        write.fixed64(7, start),
        write.fixed64(8, start + duration),
    ]
    keys = rng.sample([*KEYS, *rng.sample(OTHER_KEYS, 2)], rng.randrange(9))
    keys += [rng.choice(KEYS)] * write.odd(0.1)
    parts += [write.delimited(9, key_value(write, key=key)) for key in keys]
    rare = [
        lambda: write.delimited(3, b"a=b"),
        lambda: write.number(10, rng.choice([0, 3, 2**32])),
        lambda: write.delimited(11, write.delimited(2, b"event") + write.fixed64(1, 7)),
        lambda: write.number(12, rng.choice([0, 1])),
        lambda: write.delimited(13, write.delimited(1, bytes(16))),
        lambda: write.number(14, rng.choice([0, 1])),
        lambda: write.delimited(15, write.number(3, 2)),
        lambda: write.tag(16, 5) + struct.pack("<I", rng.choice([0, 0x101])),
        lambda: write.number(6, rng.choice([0, 2, 3, 9, -1])),
        lambda: write.fixed64(8, rng.choice([0, 2**63 - 1, 2**63, 2**64 - 1])),
        lambda: write.delimited(1, rng.choice([b"", bytes(16), b"x" * 15])),
        lambda: write.delimited(2, rng.choice([b"", bytes(8), b"x" * 9])),
        lambda: write.delimited(4, b"abc"),
        lambda: write.delimited(5, text(write)),
        lambda: write.number(1, 5),
    ]
    parts += [make() for make in rare if write.odd(0.04)]
    return write.message(parts)


def request(rng: random.Random, oddity: float = 1.0) -> bytes:
    """Returns the bytes of a request, mostly valid."""
    write = Writer(rng, oddity)
    groups: list[bytes] = []
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        pairs = [(semconv.RANK, write.number(3, rng.randrange(9)))] if rng.random() < 0.9 else []
        pairs += [(semconv.HOST_NAME, write.delimited(1, text(write)))] * (rng.random() < 0.3)
        pairs += [("other", any_value(write))] * (rng.random() < 0.3)
        attributes = [
            write.delimited(1, write.delimited(1, key.encode()) + write.delimited(2, value))
            for key, value in pairs
        ]
        parts = [write.delimited(1, write.message(attributes))] * (rng.random() < 0.9)
        parts += [write.delimited(3, text(write))] * (rng.random() < 0.3)
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            scope = [write.delimited(1, write.delimited(1, b"kat_otel"))] * (rng.random() < 0.7)
            scope += [write.delimited(2, span(write)) for _ in range(rng.randrange(6))]
            scope += [write.delimited(3, text(write))] * (rng.random() < 0.2)
            parts.append(write.delimited(2, write.message(scope)))
        groups.append(write.delimited(1, write.message(parts)))
    return write.message(groups)


def mutated(rng: random.Random, wire: bytes) -> bytes:
    """Returns the bytes with a few of them changed, cut, doubled or moved."""
    data = bytearray(wire)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(7)
        if action == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1 and at < len(data):
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif action == 2:
            del data[at:]
        elif action == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif action == 4:
            del data[at : at + rng.randrange(1, 9)]
        elif action == 5:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other : other + rng.randrange(1, 60)]
        else:
            data[at : at + 1] = b"\xff" * rng.randrange(1, 11)
    return bytes(data)


def with_a_mutated_span(rng: random.Random) -> bytes:
    """Returns a request with one span of which one byte is another: what is around is well."""
    write = Writer(rng, 0.0)
    spans = [span(write) for _ in range(rng.randrange(1, 4))]
    changed = bytearray(spans[-1])
    changed[rng.randrange(len(changed))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    scope = b"".join(write.delimited(2, data) for data in [*spans[:-1], bytes(changed)])
    return write.delimited(1, write.delimited(2, scope))


def difference(ours: SpanTable, theirs: SpanTable) -> str:
    """Returns the first column in which two tables are not equal, or ``""``."""
    if len(ours) != len(theirs):
        return f"{len(ours)} spans instead of {len(theirs)}"
    for name, column in COLUMNS.items():
        left, right = getattr(ours, name), getattr(theirs, name)
        if left.dtype != column.dtype:
            return f"{name} is {left.dtype}"
        if name in TEXT_COLUMNS:
            left = [ours.strings[at] for at in left.tolist()]
            right = [theirs.strings[at] for at in right.tolist()]
        elif name == "resource":
            left = [repr(ours.resources[at]) for at in left.tolist()]
            right = [repr(theirs.resources[at]) for at in right.tolist()]
        else:
            left, right = left.tolist(), right.tolist()
        if left != right:
            return f"{name}: {left} instead of {right}"
    if repr(ours.resources) != repr(theirs.resources):
        return "resources"
    for row in range(len(ours)):
        left, right = (repr(dict(t.attributes.get(row, {}))) for t in (ours, theirs))
        if left != right:
            return f"attributes of {row}: {left} instead of {right}"
    return ""


def refuses_groups_only(error: DecodeError) -> bool:
    """Whether the refusal is for a group outside of spans, which the library would skip."""
    return "a group" in str(error)
