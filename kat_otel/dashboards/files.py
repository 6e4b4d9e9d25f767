"""The dashboards as files, as Grafana's provisioning and its import take them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from kat_otel.dashboards.fleet import fleet
from kat_otel.dashboards.incident import incident
from kat_otel.dashboards.instance import instance
from kat_otel.dashboards.processor import processor

__all__ = ["files"]


def files() -> Mapping[str, str]:
    """Returns the text of each file by its name."""
    boards = {
        "fleet": fleet(),
        "instance": instance(),
        "incident": incident(),
        "processor": processor(),
    }
    return {
        f"kat-{name}.json": json.dumps(board.build(), cls=JSONEncoder, indent=2, ensure_ascii=False)
        + "\n"
        for name, board in boards.items()
    }
