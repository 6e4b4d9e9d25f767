"""What stands beside the cases: a card for people, and croissant's metadata for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from kat_otel.lmdia.dataset.frozen import generator_hash, plan_hash
from kat_otel.lmdia.dataset.plan import Case, Size
from kat_otel.lmdia.dataset.play import PERIOD_S, STRIDE, WARM_UP
from kat_otel.lmdia.evaluation.tables import markdown
from kat_otel.lmdia.scenarios.confounders import CONFOUNDERS
from kat_otel.lmdia.scenarios.faults import SCENARIOS
from kat_otel.lmdia.tasks.catalog import TASKS

__all__ = ["card", "confounders_table", "scenarios_table", "tasks_table"]

_COLUMNS: Final = (
    ("rank", "sc:Integer", "Rank of the worker."),
    ("host", "sc:Text", "Host of the worker."),
    ("hardware_id", "sc:Text", "Id of its GPU: metrics bear the same."),
    ("kind", "sc:Text", "worker_step, host_op, launch, sync, kernel, memcpy, memset, collective."),
    ("name", "sc:Text", "Kernel, copy, call or range."),
    ("grid", "sc:Text", "Launch grid of a kernel."),
    ("block", "sc:Text", "Launch block of a kernel."),
    ("group", "sc:Text", "Communicator of a collective."),
    ("step", "sc:Integer", "Number of the step."),
    ("span_id", "sc:Integer", "Id of the span: affected.parquet bears the same."),
    ("parent_id", "sc:Integer", "Id of the span around it, 0 if there is none."),
    ("start_ns", "sc:Integer", "Begin, Unix ns."),
    ("duration_ns", "sc:Integer", "Duration, ns."),
    ("stream", "sc:Integer", "CUDA stream, -1 on the host."),
    ("correlation", "sc:Integer", "Correlation id of a launch and its GPU work."),
    ("bytes", "sc:Integer", "Bytes copied or communicated, -1 if not said."),
)

_CARD: Final = """\
# LMDIA, open: anomalies in distributed inference, with the truth

Made by `kat lmdia generate --size {size} --seed {seed}`; the same command makes the same cases.
The paper behind KAT (arXiv 2511.05978) describes a data set of this name and shape that is not
public; this one is KAT-OTel's own, and its scenarios are this project's list.

{composition}

Plan of the test split {plan}, generator {generator}: figures are of cases with these hashes.

## A case

A folder: `traces.pb.gz` (OTLP; `kat analyze FOLDER` reads it) and `traces.parquet` (a row a span),
`metrics.otlp.gz` and `logs.otlp.gz` (OTLP, each message after its length in four bytes), and the
truth: `label.json` (kind, scenario, component, culprits, victims, first and last step, severity)
and `affected.parquet` (ids of the spans whose own times the fault changed). All on one clock.

Judged steps are samples of serving, one every {period} s, {stride} step numbers apart: {warm_up}
healthy ones, the fault, a rest. Severity is the share by which the noiseless step gets longer;
what makes it so is found by replaying it. Splits are by task: no task is in two.

## How it is made

Kernel sequences follow the models' published shapes, durations the roofline of the named GPUs'
data sheets, their spread what real traces show (`kat_otel/lmdia/fit_noise.py`). A causal replay
(host thread, launches, streams, events, collectives that wait for the last, pipeline stages)
turns what a sick part owns into what everybody else sees. Metrics and logs bear the names of
dcgm-exporter, hostmetrics, node_exporter, NCCL and the engines.

## Tasks

{tasks}

## Faults

{scenarios}

## Confounders: to be told from faults

{confounders}

## Limits

- Simulated: no case is of a real incident. Contention for SMs, memory and links between streams
  of one rank is not modelled, nor a full launch queue; layers are cut to about a thousand
  operations a step.
- A machine is sick in one way at a time. Metrics of a fault are what exporters would show of the
  part, not a copy of a real machine's.
- Noise is fitted to few traces; no healthy multi-rank trace of a serving engine was at hand.
- Licence: that of KAT-OTel (Apache-2.0). No weights, prompts or personal data are in it.
"""


def card(cases: Sequence[Case], size: Size, seed: int) -> dict[str, str]:
    """Returns the files that go beside some cases: their texts by name."""
    text = _CARD.format(
        size=size,
        seed=seed,
        composition=_composition(cases),
        plan=f"`{plan_hash()}`",
        generator=f"`{generator_hash()}`",
        period=PERIOD_S,
        stride=STRIDE,
        warm_up=WARM_UP,
        tasks=tasks_table(),
        scenarios=scenarios_table(),
        confounders=confounders_table(),
    )
    return {"CARD.md": text, "croissant.json": json.dumps(_croissant(), indent=1) + "\n"}


def _composition(cases: Sequence[Case]) -> str:
    splits = list(dict.fromkeys(case.split for case in cases))
    parts = ("fault", "confounder", "healthy")
    counted = Counter((case.split, case.part) for case in cases)
    sources = {split: len({c.source for c in cases if c.split == split}) for split in splits}
    rows = [
        [split, f"{sources[split]}", *(f"{counted[split, part]}" for part in parts)]
        for split in splits
    ]
    return markdown(("split", "sources", "faults", "confounders", "healthy"), rows)


def tasks_table() -> str:
    """Returns the 42 tasks as Markdown."""
    rows: list[list[str]] = []
    for task in TASKS:
        layout = task.layout
        sizes = ("tp", layout.tp), ("pp", layout.pp), ("dp", layout.dp), ("ep", layout.ep)
        places = ", ".join(f"{name.upper()} {n}" for name, n in sizes if n > 1)
        rows.append([f"`{task.name}`", f"{layout.ranks}", places, task.gpu.name, task.split])
    return markdown(("task", "ranks", "layout", "GPU", "split"), rows)


def scenarios_table() -> str:
    """Returns the eleven faults as Markdown: what they are, and what traces alone can tell."""
    rows = [
        [
            f"`{s.name}`",
            s.text,
            "one rank" if s.place == "rank" else "a group, no rank of it",
            ", ".join(f"`{kind}`" for kind in s.kinds),
            f"`{s.component}`",
            ", ".join(f"`{component}`" for component in s.candidates),
        ]
        for s in SCENARIOS.values()
    ]
    head = ("scenario", "what is done", "who differs", "kind", "component", "traces alone")
    return markdown(head, rows)


def confounders_table() -> str:
    """Returns the confounders as Markdown: what they are, and what may be said of them."""
    rows = [
        [f"`{c.name}`", c.text, ", ".join(f"`{kind}`" for kind in c.kinds) or "nothing"]
        for c in CONFOUNDERS.values()
    ]
    return markdown(("confounder", "what happens", "may be called"), rows)


def _croissant() -> dict[str, Any]:
    """Croissant 1.0 (http://mlcommons.org/croissant/1.0)."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"spans/{name}",
            "name": name,
            "description": text,
            "dataType": kind,
            "source": {"fileSet": {"@id": "tables"}, "extract": {"column": name}},
        }
        for name, kind, text in _COLUMNS
    ]
    return {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "sc": "https://schema.org/",
            "dct": "http://purl.org/dc/terms/",
            "citeAs": "cr:citeAs",
            "column": "cr:column",
            "conformsTo": "dct:conformsTo",
            "data": {"@id": "cr:data", "@type": "@json"},
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "extract": "cr:extract",
            "field": "cr:field",
            "fileObject": "cr:fileObject",
            "fileProperty": "cr:fileProperty",
            "fileSet": "cr:fileSet",
            "includes": "cr:includes",
            "recordSet": "cr:recordSet",
            "source": "cr:source",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "LMDIA-open",
        "description": "Traces, metrics and logs of 42 inference tasks under 11 faults and their "
        "confounders, with the truth: simulated by a causal replay.",
        "license": "https://www.apache.org/licenses/LICENSE-2.0",
        "url": "https://github.com/kat-otel/kat-otel",
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "folder",
                "name": "folder",
                "contentUrl": ".",
                "encodingFormat": "text/directory",
                "sha256": generator_hash().ljust(64, "0"),
            },
            {
                "@type": "cr:FileSet",
                "@id": "tables",
                "name": "tables",
                "containedIn": {"@id": "folder"},
                "encodingFormat": "application/x-parquet",
                "includes": "*/*/traces.parquet",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "spans",
                "name": "spans",
                "description": "A row a span.",
                "field": fields,
            }
        ],
    }
