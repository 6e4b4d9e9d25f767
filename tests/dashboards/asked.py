"""Which series a PromQL expression asks for, and which of their labels it relies on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import promql_parser as promql

SET_OPERATORS = {"and", "unless"}
"""Their right side decides what stays; what is shown comes from the left."""


class Asked(NamedTuple):
    """A series and the labels that it must have."""

    series: str
    labels: frozenset[str]


def asked(expression: str, shown: frozenset[str] = frozenset()) -> Iterator[Asked]:
    """Yields what an expression asks for.

    Args:
        expression: PromQL, with its variables replaced.
        shown: labels that its reader expects in the result: of a legend, of a table's columns.

    Raises:
        ValueError: it is no PromQL.
    """
    yield from _visit(promql.parse(expression), shown)


def _visit(node: promql.Expr, needed: frozenset[str]) -> Iterator[Asked]:
    match node:
        case promql.VectorSelector():
            names = [m.value for m in node.matchers.matchers if m.name == "__name__"]
            labels = {m.name for m in node.matchers.matchers} - {"__name__"}
            for name in [node.name] if node.name else names[0].split("|"):
                yield Asked(name, needed | labels)
        case promql.MatrixSelector():
            yield from _visit(node.vector_selector, needed)
        case promql.AggregateExpr():
            yield from _visit(node.expr, _below(node, needed))
        case promql.Call():
            for argument in node.args:
                yield from _visit(argument, _within(node, needed))
        case promql.BinaryExpr():
            yield from _both(node, needed)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _visit(node.expr, needed)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise NotImplementedError(f"{type(node).__name__}: say here what it asks for")


def _within(node: promql.Call, needed: frozenset[str]) -> frozenset[str]:
    """What a function needs of its arguments."""
    if node.func.name == "histogram_quantile":
        return needed | {"le"}
    if node.func.name == "label_replace":
        return needed - {node.args[1].val} | {node.args[3].val}
    return frozenset() if node.func.name in {"scalar", "vector"} else needed


def _below(node: promql.AggregateExpr, needed: frozenset[str]) -> frozenset[str]:
    """What an aggregation needs of what it aggregates; it lets through what it names."""
    if str(node.op) in {"topk", "bottomk"}:
        return needed
    by = node.modifier
    kept: frozenset[str] = frozenset(by.labels) if by is not None else frozenset()
    assert by is None or by.type == promql.AggModifierType.By, node
    assert needed <= kept, f"{node}: {sorted(needed - kept)} do not come through"
    return kept


def _both(node: promql.BinaryExpr, needed: frozenset[str]) -> Iterator[Asked]:
    modifier = node.modifier
    on: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    if modifier is not None:
        on = frozenset(modifier.matching.labels if modifier.matching else ())
        taken = frozenset(modifier.group_labels or ())
    left = needed - taken | on
    yield from _visit(node.lhs, left)
    operator = str(node.op).strip()
    right = left if operator == "or" else on | taken
    if operator == "or" and isinstance(node.rhs, promql.Call) and node.rhs.func.name == "vector":
        right = frozenset()  # what stands for "none"
    yield from _visit(node.rhs, right)
