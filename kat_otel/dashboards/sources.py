"""Where the panels' data comes from: two data sources and the variables that choose among it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import (
    DatasourceVariable,
    QueryVariable,
    TextBoxVariable,
)
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

__all__ = [
    "JAEGER",
    "PROMETHEUS",
    "JaegerQuery",
    "JaegerSearch",
    "JaegerTrace",
    "choice",
    "sources",
    "typed",
]

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="${prometheus}")
JAEGER: Final = DataSourceRef(type_val="jaeger", uid="${jaeger}")


def sources() -> tuple[DatasourceVariable, DatasourceVariable]:
    """The variables that every dashboard begins with: which Prometheus, which Jaeger."""
    return (
        DatasourceVariable("prometheus").label("Prometheus").type("prometheus"),
        DatasourceVariable("jaeger").label("Jaeger").type("jaeger"),
    )


def choice(
    name: str, title: str, about: str, series: str, label: str, *, several: bool
) -> QueryVariable:
    """A variable that takes the values of a label.

    Args:
        name: what queries call it.
        title: what the reader sees beside it.
        about: what the reader sees when pointing at it.
        series: selector of the series that have the label; it may name other variables.
        label: whose values.
        several: whether several, and all of them, can be taken at once.
    """
    made = (
        QueryVariable(name)
        .label(title)
        .description(about)
        .datasource(PROMETHEUS)
        .query(f"label_values({series}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    if not several:
        return made
    # `.*` and not the list of all: a fleet's names would make a query too long for a URL.
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    return made.multi(multi=True).include_all(include_all=True).all_value(".*").current(every)


def typed(name: str, title: str, about: str, value: str) -> TextBoxVariable:
    """A variable that the reader writes, with what stands there before."""
    return (
        TextBoxVariable(name)
        .label(title)
        .description(about)
        .default_value(value)
        .current(VariableOption(selected=True, text=value, value=value))
    )


class JaegerQuery(variants.Dataquery):
    """A query of Grafana's Jaeger data source, for which the SDK has no type.

    Attributes:
        ref_id: its name in the panel.
        fields: what it asks for, as ``JaegerQuery`` of ``@grafana-plugins/jaeger`` has it.
    """

    def __init__(self, ref_id: str, **fields: str | int) -> None:
        self.ref_id = ref_id
        self.fields = fields

    def to_json(self) -> dict[str, object]:
        """Returns the query as the dashboard's file has it."""
        return {"datasource": JAEGER, "refId": self.ref_id, **self.fields}


class JaegerSearch(builder.Builder[variants.Dataquery]):
    """Finds steps by tags.

    Args:
        tags: pairs that a span of the step must have all, and their values.
        limit: how many steps.
    """

    def __init__(self, tags: dict[str, str], *, limit: int = 50) -> None:
        self._tags = " ".join(f'{name}="{value}"' for name, value in tags.items())
        self._limit = limit

    def build(self) -> JaegerQuery:
        """Returns the query."""
        return JaegerQuery(
            "A", queryType="search", service="kat", tags=self._tags, limit=self._limit
        )


class JaegerTrace(builder.Builder[variants.Dataquery]):
    """Reads one trace.

    Args:
        trace_id: its id, or a variable.
    """

    def __init__(self, trace_id: str) -> None:
        self._trace_id = trace_id

    def build(self) -> JaegerQuery:
        """Returns the query."""
        return JaegerQuery("A", query=self._trace_id)
