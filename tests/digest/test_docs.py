"""docs/digests.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from kat_otel.capture import Orders, Poll
from kat_otel.digest.form import HEADER, MAX_BYTES

PAGE = (Path(__file__).parents[2] / "docs" / "digests.md").read_text()
_SIZES = {"u1": 1, "u2": 2, "u4": 4, "i8": 8}


def test_the_page_has_every_field_of_the_header() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert HEADER.names is not None
    told = [name for names, _ in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(told) == sorted({*HEADER.names, "magic"})
    for names, types in rows:
        sizes = [_SIZES[size] for size in re.findall(r"`(u1|u2|u4|i8)`", types)]
        fields = re.findall(r"`(\w+)`", names)
        for at, name in enumerate(fields if sizes else []):
            size = sizes[min(at, len(sizes) - 1)]
            assert HEADER[name].base.itemsize == size, name
    assert f"{HEADER.itemsize} | header" in PAGE
    assert f"{MAX_BYTES:,} bytes" in PAGE


def test_its_messages_are_understood() -> None:
    question, answer = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
    poll = Poll.decode(question.encode())
    assert (poll.instance, poll.rank, poll.step) == ("llama-70b-a", 3, 8123)
    (capture,) = Orders.decode(answer.encode()).captures
    assert [capture.wants(step) for step in (8101, 8143, 8120)] == [True, True, False]
