"""What rules are made of, and how they stand in a file of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml

__all__ = ["DOCS", "Alert", "Group", "Record", "Severity", "file_text"]

Severity = Literal["page", "ticket"]
"""``page`` wakes somebody; ``ticket`` waits for working hours."""

DOCS: Final = "https://kat-otel.readthedocs.io/en/latest/"
"""Where the runbooks stand."""

_LINE: Final = 100
"""Characters; a longer text is folded, so that a change of it can be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A series that Prometheus computes once, for all who ask.

    Attributes:
        name: ``level:metric:operation``, as Prometheus recommends.
        expression: PromQL.
        about: what it is and whom it serves; for the documentation.
    """

    name: str
    expression: str
    about: str

    def entry(self) -> dict[str, Any]:
        """Returns the rule as a file has it."""
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person must hear of.

    Its texts are templates of Prometheus: ``$labels`` and ``$value`` are those of the expression.

    Attributes:
        name: what Alertmanager calls it; two of the same name differ in severity.
        severity: whom it wakes.
        when: plain words, for the documentation: "no processor is scraped".
        expression: PromQL; each series of it is an alert.
        lasts: how long it must hold, as ``5m``; empty to fire at once.
        summary: what and where, in a line that fits a phone.
        where: more on the place; empty where the summary says it all.
        cost: what is lost while nobody acts.
        action: what to do first.
        runbook: page and anchor below :data:`DOCS`.
    """

    name: str
    severity: Severity
    when: str
    expression: str
    lasts: str
    summary: str
    cost: str
    action: str
    runbook: str
    where: str = ""

    def entry(self) -> dict[str, Any]:
        """Returns the rule as a file has it."""
        parts = [self.where and f"Where: {self.where}", f"Cost: {self.cost}", f"Do: {self.action}"]
        return {
            "alert": self.name,
            "expr": self.expression,
            **({"for": self.lasts} if self.lasts else {}),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": " ".join(part for part in parts if part),
                "runbook_url": DOCS + self.runbook,
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other: a later one sees what an earlier recorded."""

    name: str
    rules: Sequence[Record] | Sequence[Alert]
    interval: str = ""
    """How often, where that differs from Prometheus' own."""

    def entry(self) -> dict[str, Any]:
        """Returns the group as a file has it."""
        return {
            "name": self.name,
            **({"interval": self.interval} if self.interval else {}),
            "rules": [rule.entry() for rule in self.rules],
        }


def file_text(about: str, groups: Sequence[Group]) -> str:
    """Returns a rule file, as Prometheus and the chart's PrometheusRule take it.

    Args:
        about: what stands above it, a comment.
        groups: in their order.
    """
    content = {"groups": [group.entry() for group in groups]}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_LINE)
    return "".join(f"# {line}\n" for line in about.splitlines()) + text


class _Dumper(yaml.SafeDumper):
    """Folds long texts, which plain YAML would quote and break inside words of PromQL."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's own
        super().increase_indent(flow, False)


def _text(_: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = ">" if len(text) > _LINE - 20 else None
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
