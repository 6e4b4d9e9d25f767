"""How one dashboard leads to the next, and what it takes along.

Times and data sources always go along. A value of a row or series is named in the way of Grafana's
data links: ``${__data.fields.X}`` is the value of column X, ``${__field.labels.x}`` of a label.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DashboardLink

from kat_otel.dashboards.panels import link

__all__ = [
    "FLEET_UID",
    "INCIDENT_UID",
    "INSTANCE_UID",
    "PROCESSOR_UID",
    "cell",
    "label",
    "to_incident",
    "to_instance",
    "to_trace",
]

FLEET_UID: Final = "kat-fleet"
INSTANCE_UID: Final = "kat-instance"
INCIDENT_UID: Final = "kat-incident"
PROCESSOR_UID: Final = "kat-processor"

_ALONG: Final = "${__url_time_range}&${prometheus:queryparam}&${jaeger:queryparam}"


def cell(column: str) -> str:
    """The value of a table's column, by its heading, in the row that was clicked."""
    return f'${{__data.fields["{column}"]}}'


def label(name: str) -> str:
    """A label of the series that was clicked."""
    return f"${{__field.labels.{name}}}"


def to_instance(instance: str) -> DashboardLink:
    """Leads to the dashboard of an instance."""
    return link("The instance", f"/d/{INSTANCE_UID}?{_ALONG}&var-instance={instance}")


def to_incident(instance: str, kind: str, component: str, rank: str) -> DashboardLink:
    """Leads to the dashboard of one incident."""
    which = f"var-instance={instance}&var-kind={kind}&var-component={component}&var-rank={rank}"
    return link("The incident", f"/d/{INCIDENT_UID}?{_ALONG}&{which}")


def to_trace() -> DashboardLink:
    """Leads to the same incident with the trace whose id was clicked."""
    kept = "&".join(
        f"${{{name}:queryparam}}" for name in ("instance", "kind", "component", "rank", "price")
    )
    return link("Show the trace", f"/d/{INCIDENT_UID}?{_ALONG}&{kept}&var-trace=${{__value.raw}}")
