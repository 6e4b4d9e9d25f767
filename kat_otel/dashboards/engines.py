"""What users feel, as the engines measure it: first token and the time between tokens.

The names are vLLM's and SGLang's own. Neither engine says ``kat.instance.id``: one chooses a model.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import QueryVariable
from grafana_foundation_sdk.builders.timeseries import Panel

from kat_otel.dashboards.panels import curve, lines
from kat_otel.dashboards.promql import among, quantile
from kat_otel.dashboards.sources import choice

__all__ = ["ENGINE_HISTOGRAMS", "MODEL", "between_tokens", "first_token", "model_choice"]

MODEL: Final = "model_name"

_FIRST: Final = "time_to_first_token_seconds"
_BETWEEN: Final = "inter_token_latency_seconds"
_ENGINES: Final = {"vllm": "vLLM", "sglang": "SGLang"}

ENGINE_HISTOGRAMS: Final = {
    f"{engine}:{metric}": (MODEL,) for engine in _ENGINES for metric in (_FIRST, _BETWEEN)
}
"""The engines' histograms, and their labels that queries name."""


def model_choice() -> QueryVariable:
    """Chooses among the models that the engines serve."""
    every = "|".join(f"{engine}:{_FIRST}_count" for engine in _ENGINES)
    return choice(
        "model",
        "Model",
        "Whose first token and time between tokens are shown: engines do not say the instance.",
        f'{{__name__=~"{every}"}}',
        MODEL,
        several=True,
    )


def first_token() -> Panel:
    """Time to first token: what a user waits for an answer to begin."""
    return _panel(
        "Time to first token",
        "How long users wait for the first token. Where it rises in shaded times, the incident "
        "reached the users; where it rises alone, look at the load and the queue.",
        _FIRST,
    )


def between_tokens() -> Panel:
    """Time per output token: how fast an answer is written."""
    return _panel(
        "Time per output token",
        "How long users wait from one token to the next. A rank that comes late makes every step "
        "longer, so it shows here first.",
        _BETWEEN,
    )


def _panel(title: str, about: str, metric: str) -> Panel:
    queries = [
        curve(
            quantile(q, f"{engine}:{metric}", among(MODEL, "model"), by=MODEL),
            f"{name} {{{{{MODEL}}}}} p{100 * q:g}",
        )
        for engine, name in _ENGINES.items()
        for q in (0.5, 0.95)
    ]
    return lines(title, about, queries, "s")
