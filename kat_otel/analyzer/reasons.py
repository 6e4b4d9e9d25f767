"""Why a model's diagnosis is not taken: the closed list by which it is counted."""

from __future__ import annotations

from typing import Literal

__all__ = ["Failure", "Rejection", "WhyNot"]

Rejection = Literal[
    "no_json",
    "truncated",
    "wrong_form",
    "unknown_cause",
    "component_not_of_cause",
    "unknown_evidence",
    "nothing_cited",
    "cause_not_cited",
    "unknown_action",
    "culprit_outside",
    "abstention_unclear",
    "number_not_cited",
    "name_not_cited",
    "part_not_cited",
    "unsafe_text",
]
"""What is wrong with an answer:

``no_json``: no object in it. ``truncated``: it was cut at the most tokens. ``wrong_form``: fields
missing, too long or of another type. ``unknown_cause``, ``unknown_evidence``, ``unknown_action``:
named, but not among those given. ``component_not_of_cause``: it contradicts itself.
``nothing_cited``: a cause without evidence. ``cause_not_cited``: none of what is cited
speaks for the cause, by the knowledge. ``culprit_outside``: a rank that is no culprit of the
incident is blamed, or a rank is told of that the cited facts don't. ``abstention_unclear``: it
abstains and names a cause, or neither. ``number_not_cited``: a number that is in none of the cited
facts. ``name_not_cited``: an id or alias that they don't have. ``part_not_cited``: a sentence names
a part of the machine that is neither the cause's nor in the facts. ``unsafe_text``: markup, links,
commands, characters that are not seen.
"""

Failure = Literal[
    "unreachable",
    "timeout",
    "overloaded",
    "server_error",
    "not_allowed",
    "no_such_model",
    "not_accepted",
    "refused",
    "empty",
]
"""Why there is no answer:

``unreachable``: no connection. ``timeout``: not within the time. ``overloaded``: 429.
``server_error``: 5xx. ``not_allowed``: 401, 403. ``no_such_model``: 404. ``not_accepted``: any
other 4xx, or a redirect. ``refused``: the model declined. ``empty``: an answer without text.
"""

WhyNot = Rejection | Failure | Literal["nothing_to_ask"]
"""``nothing_to_ask``: the side is unknown, there is no evidence, or no cause comes in question."""
