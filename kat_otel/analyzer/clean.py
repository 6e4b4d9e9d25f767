"""Untrusted text made harmless: one line, no characters unseen, no chat markup, no secrets.

What the workload chose (names of kernels, hosts, models) never reaches a model: it is aliased. What
is here is the second line of defence for what leaves, and the form in which names are shown
afterwards.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["REDACTED", "clean", "redact"]

REDACTED: Final = "[redacted]"
_STRIPPED: Final = "[stripped]"
_LONGEST: Final = 160

_MARKUP: Final = re.compile(
    r"<\|[^|>]{0,40}\|?>?"  # chat tokens: <|im_start|>
    r"|</?(?:s|think|tool_call|evidence|system|user|assistant)\b[^>]{0,40}>?"
    r"|\[/?(?:INST|SYS)\]|<</?SYS>>|```",
    re.IGNORECASE,
)
_SECRET: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*"
    r"|\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"
    r"|\bhf_[A-Za-z0-9]{20,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{10,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]{5,})?"
    r"|\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}"
    r"|\b(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|pwd|authorization|credentials?)"
    r"\s*[=:]\s*\S+"
    r"|(?<=://)[^/\s:@]{0,80}:[^/\s@]{1,80}(?=@)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Returns the text with what looks like a key, token or password replaced."""
    return _SECRET.sub(REDACTED, text)


def clean(text: str, limit: int = _LONGEST) -> str:
    """Returns untrusted text in one line of at most ``limit`` characters, without any effect.

    Compatibility forms are unified (full-width letters, ligatures), so that nothing slips past by
    being spelt differently; then control and format characters go (bidi, zero width, tags).
    """
    said = unicodedata.normalize("NFKC", text[: 8 * limit])
    shown = "".join(_seen(c) for c in said)
    line = redact(_MARKUP.sub(_STRIPPED, " ".join(shown.split())))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _seen(character: str) -> str:
    """Returns a character, a space for white space and controls, nothing for what has no width."""
    if character.isprintable():
        return character
    return "" if unicodedata.category(character) in {"Cf", "Co", "Cs", "Cn"} else " "
