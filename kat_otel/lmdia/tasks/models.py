"""Shapes of the models, as their published configurations say them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Model"]


@dataclass(frozen=True, slots=True)
class Model:
    """Shape of a transformer.

    Attributes:
        name: short, for task names.
        kind: dense layers, experts, or a diffusion transformer (no KV cache, no sampling).
        attention: grouped queries, or DeepSeek's latent attention.
        layers: of the model.
        hidden, intermediate, heads, kv_heads, head_size, vocabulary: widths.
        weight_bytes: bytes of a weight: 2 for bf16, 1 for fp8, 0.5 for mxfp4.
        experts: routed experts of a layer; 0 in dense models.
        experts_per_token: routed experts that a token visits.
        expert_intermediate: width of an expert.
        shared_experts: experts that every token visits.
        dense_layers: first layers without experts.
    """

    name: str
    kind: Literal["dense", "moe", "diffusion"]
    attention: Literal["gqa", "mla"]
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    weight_bytes: float = 2.0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
