"""The card beside exported weights: what they are made of, their licence, how to serve them."""

from __future__ import annotations

from typing import Final

from kat_otel.adapt.training.base import base_name
from kat_otel.adapt.training.runs import Begun, Trained
from kat_otel.analyzer.prompt import PROMPT_VERSION

__all__ = ["model_card"]

_CARD: Final = """\
# {name}, adapted to `kat.report/v1` incidents

A LoRA adapter (rank {rank}, alpha {alpha}) trained by `kat adapt train`, for prompt {prompt} of
KAT-OTel without sentences (`--no-prose`). How right it is, `kat adapt evaluate` says.

- **Base**: {name}{revision}, {license}. Its licence holds for merged weights and for the GGUF file.
- **Examples**: {examples}, simulated; SHA-256 of their file {data}.
- **Training**: {steps} of {planned} steps, loss {loss} in the last one, seed {seed}.
- **Made with**: {versions}.

`adapter/` is loaded by vLLM beside the base, with `--enable-lora --max-lora-rank {rank}
--lora-modules NAME=adapter`; `merged/` by whatever loads the base; the `.gguf` file by llama.cpp.
Beside another base the adapter may answer without an error, and wrongly.
"""


def model_card(begun: Begun, trained: Trained) -> str:
    """Returns the card of a run, in Markdown."""
    config = begun.config
    return _CARD.format(
        name=base_name(config.base),
        revision=f" at {config.base.revision}" if config.base.revision else "",
        license=config.base.license,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        prompt=PROMPT_VERSION,
        examples=trained.examples,
        data=begun.data,
        steps=trained.steps,
        planned=trained.planned,
        loss="unknown" if trained.loss is None else f"{trained.loss:.3g}",
        seed=config.training.seed,
        versions=", ".join(f"{name} {number}" for name, number in begun.versions.items()),
    )
