"""The committed dashboards: as they are made, whole, and asking only for what is emitted."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from grafana_foundation_sdk.models.units import __dict__ as units

from kat_otel import semconv
from kat_otel.dashboards.files import differing, files, write
from tests.dashboards.asked import asked
from tests.dashboards.emitted import emitted
from tests.dashboards.reading import (
    DASHBOARDS,
    FOLDER,
    filled,
    jaeger_queries,
    label_values,
    panels,
    prometheus_queries,
    variables,
)

EMITTED = emitted()
QUERIES = [query for name in DASHBOARDS for query in prometheus_queries(name)]
BUILT_IN = {
    "__range": "6h",
    "__interval": "1m",
    "__rate_interval": "1m",
}
ALL_PANELS = [
    pytest.param(name, panel, id=f"{name} / {panel['title']}")
    for name in DASHBOARDS
    for panel in panels(DASHBOARDS[name])
]


def values(name: str) -> dict[str, str]:
    """Something in the place of each variable of a dashboard."""
    return BUILT_IN | dict.fromkeys(variables(name), "1")


# --- files ---------------------------------------------------------------------------------


def test_the_committed_files_are_what_is_made():
    assert differing(FOLDER) == [], f"run: kat dashboards --out {FOLDER}"


def test_a_file_that_was_changed_by_hand_is_noticed(tmp_path):
    first, *rest = write(tmp_path)
    assert differing(tmp_path) == []
    first.write_text(first.read_text().replace("KAT", "kat"))
    rest[-1].unlink()
    assert differing(tmp_path) == [first, rest[-1]]


def test_the_four_dashboards_keep_the_ids_by_which_links_find_them():
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == {
        name: name for name in ("kat-fleet", "kat-instance", "kat-incident", "kat-processor")
    }
    assert len(files()) == len(DASHBOARDS)


# --- form ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_model_knows_every_field(name):
    register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(DASHBOARDS[name]), cls=JSONEncoder))
    unknown = list(lost(DASHBOARDS[name], read))
    # The model has no names for what Prometheus' annotations are called.
    named = re.compile(r"/annotations/list/0/(step|titleFormat|textFormat|tagKeys)")
    assert [place for place in unknown if not named.fullmatch(place)] == []


def test_a_misspelt_field_is_noticed():
    register_default_plugins()
    wrong = {"panels": [{"type": "stat", "title": "x", "gridPoss": {"h": 1}}]}
    read = json.loads(json.dumps(Dashboard.from_json(wrong), cls=JSONEncoder))
    assert list(lost(wrong, read)) == ["/panels/0/gridPoss"]


def lost(wanted: object, read: object, place: str = "") -> Iterator[str]:
    """Yields where a value is not in what was read."""
    if isinstance(wanted, dict) and isinstance(read, dict):
        for key, value in wanted.items():
            yield from lost(value, read.get(key), f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(read, list) and len(wanted) == len(read):
        for at, (one, other) in enumerate(zip(wanted, read, strict=True)):
            yield from lost(one, other, f"{place}/{at}")
    elif wanted != read:
        yield place


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_of_their_own_and_fill_the_width_without_overlap(name):
    boxes = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)
    taken = Counter(
        cell
        for box in boxes
        for cell in itertools.product(
            range(box["x"], box["x"] + box["w"]), range(box["y"], box["y"] + box["h"])
        )
    )
    assert set(taken.values()) == {1}
    assert {x for x, _ in taken} == set(range(24))
    assert len(taken) == 24 * max(box["y"] + box["h"] for box in boxes)


@pytest.mark.parametrize(("name", "panel"), ALL_PANELS)
def test_a_panel_says_what_it_shows_and_in_what_unit(name, panel):
    assert panel["title"]
    if panel["type"] == "text":
        return
    assert len(panel["description"]) > 20
    assert panel["targets"]
    if panel["datasource"]["type"] == "prometheus":
        known = {unit for unit in units.values() if isinstance(unit, str)}
        assert panel["fieldConfig"]["defaults"]["unit"] in known
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_first_row_answers_before_anything_is_scrolled_to(name):
    first = [panel for panel in panels(DASHBOARDS[name]) if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in first} <= {"stat", "table"}
    assert sum(panel["gridPos"]["w"] for panel in first) == 24


@pytest.mark.parametrize("name", DASHBOARDS)
def test_data_sources_are_chosen_never_fixed(name):
    chosen = {
        kind: f"${{{variable['name']}}}"
        for variable in variables(name).values()
        if variable["type"] == "datasource"
        for kind in [variable["query"]]
    }
    assert set(chosen) == {"prometheus", "jaeger"}
    text = json.dumps(DASHBOARDS[name])
    for kind, uid in re.findall(r'"datasource": \{"type": "(\w+)", "uid": "([^"]*)"\}', text):
        assert uid == chosen[kind]


# --- queries -------------------------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES, ids=[query.where for query in QUERIES])
def test_a_query_asks_only_for_series_and_labels_that_are_emitted(query):
    name = query.where.partition(" / ")[0]
    for series, labels in asked(filled(query.expression, values(name)), query.shown):
        assert series in EMITTED, query.expression
        assert labels <= EMITTED[series], f"{series} never has {sorted(labels - EMITTED[series])}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_variable_takes_values_of_a_label_that_its_series_have(name):
    known = dict(BUILT_IN)
    for variable in variables(name).values():
        if variable["type"] == "query":
            series, label = label_values(variable)  # it names those before it alone
            for one, labels in asked(filled(series, known), frozenset({label})):
                assert labels <= EMITTED[one], f"${variable['name']}: {series}"
        known[variable["name"]] = "1"


def test_a_label_that_is_never_emitted_is_noticed():
    (wrong,) = asked('sum by (kat_rack) (kat_incidents_total{page="true"})')
    assert wrong.labels - EMITTED[wrong.series] == {"kat_rack", "page"}


@pytest.mark.parametrize(
    ("where", "search"), [search for name in DASHBOARDS for search in jaeger_queries(name)]
)
def test_jaeger_is_asked_by_attributes_that_spans_have(where, search):
    known = {value for value in vars(semconv).values() if isinstance(value, str)}
    assert set(re.findall(r"([\w.]+)=", search.get("tags", ""))) <= known


# --- links ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_link_leads_to_a_dashboard_and_sets_variables_that_it_has(name):
    urls = re.findall(r'"url": "(/d/[^"]+)"', json.dumps(DASHBOARDS[name]).replace('\\"', "'"))
    for url in urls:
        target = variables(urlsplit(url).path.removeprefix("/d/"))
        plain = re.sub(r"\$\{(\w+):queryparam\}", r"var-\1=x", url)
        given = dict(parse_qsl(urlsplit(re.sub(r"\$\{[^}]*\}", "x", plain)).query))
        assert {key.removeprefix("var-") for key in given if key.startswith("var-")} <= set(target)
        kept = set(re.findall(r"\$\{(\w+):queryparam\}", url))
        assert kept <= set(variables(name))
    assert urls or name == "kat-processor"


def test_a_click_on_who_makes_the_others_wait_leads_to_the_instance_and_the_incident():
    (who,) = (p for p in panels(DASHBOARDS["kat-fleet"]) if p["title"].startswith("Who makes"))
    urls = re.findall(r"/d/([\w-]+)", json.dumps(who))
    assert set(urls) == {"kat-instance", "kat-incident"}
