"""The committed rules: as they are made, sound, told of, and asking only for what is emitted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import promql_parser as promql
import pytest

from kat_otel.made_files import differing
from kat_otel.rules.files import alert_groups, files
from kat_otel.rules.incidents import alert_name
from kat_otel.rules.processor import DEFECTS, NOT_JUDGED
from kat_otel.rules.records import groups
from kat_otel.rules.rule import DOCS, Record
from kat_otel.verdict import Component
from tests.dashboards.asked import asked
from tests.dashboards.emitted import SCRAPED, emitted
from tests.rules.promtool import promtool
from tests.rules.reading import ALERTS, FILES, FOLDER, RECORDS, RULES, asked_in_texts

REPOSITORY = Path(__file__).parents[2]
EMITTED = emitted() | {"up": SCRAPED}
EVERY_ALERT = pytest.mark.parametrize("alert", ALERTS.values(), ids="-".join(ALERTS).split)
