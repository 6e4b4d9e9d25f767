"""The few forms of PromQL that the dashboards are made of."""

from __future__ import annotations

__all__ = ["among", "counted", "equals", "mean", "quantile", "rate", "selected", "told"]


def selected(metric: str, *matchers: str) -> str:
    """Returns a selector: ``metric{matcher,matcher}``."""
    return metric + "{" + ", ".join(matchers) + "}" if matchers else metric


def equals(label: str, value: str) -> str:
    """A matcher of one value, which may be a variable: ``label="$variable"``."""
    return f'{label}="{value}"'


def among(label: str, variable: str) -> str:
    """A matcher of a variable that takes several values or all."""
    return f'{label}=~"${variable}"'


def told(label: str) -> str:
    """A matcher of whatever says this label."""
    return f'{label}!=""'


def rate(selector: str) -> str:
    """Growth of a counter a second, over a window that spans at least four scrapes."""
    return f"rate({selector}[$__rate_interval])"


def counted(selector: str, window: str) -> str:
    """Growth of a counter over a window, a series that was born in it counted from zero.

    ``increase`` counts from the first value that it sees: of a counter that appears with its first
    event, that event would be missing.
    """
    return (
        f"((increase({selector}[{window}]) and {selector} offset {window}) "
        f"or ({selector} unless {selector} offset {window}))"
    )


def mean(histogram: str, *matchers: str, window: str = "$__rate_interval") -> str:
    """The mean of a histogram over a window, a number without labels."""
    total, count = (selected(f"{histogram}_{end}", *matchers) for end in ("sum", "count"))
    return f"scalar(sum(increase({total}[{window}])) / sum(increase({count}[{window}])))"


def quantile(q: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram, by labels if any are named."""
    labels = f"le, {by}" if by else "le"
    buckets = rate(selected(f"{histogram}_bucket", *matchers))
    return f"histogram_quantile({q:g}, sum by ({labels}) ({buckets}))"
