"""Shapes of the models, as their published configurations say them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["MODELS", "Model"]


@dataclass(frozen=True, slots=True)
class Model:
    """Shape of a transformer.

    Attributes:
        name: short, for task names.
        kind: dense layers, experts, or a diffusion transformer (no KV cache, no sampling).
        attention: grouped queries, or DeepSeek's latent attention.
        layers: of the model.
        hidden, intermediate, heads, kv_heads, head_size, vocabulary: widths.
        weight_bytes: bytes of a linear layer's weight: 2 for bf16, 1 for fp8.
        expert_bytes: bytes of an expert's weight: those, or 0.53 for mxfp4 with its scales.
        experts: routed experts of a layer; 0 in dense models.
        experts_per_token: routed experts that a token visits.
        expert_intermediate: width of an expert.
        shared_experts: experts that every token visits.
        dense_layers: first layers without experts.
        query_rank, kv_rank, rope_size: of latent attention: widths of the compressed queries, of
            the compressed keys and values, and of the part of a head that is rotated.
        published: parameters in all, as the model's maker says, in thousand millions.
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
    expert_bytes: float = 2.0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    query_rank: int = 0
    kv_rank: int = 0
    rope_size: int = 0
    published: float = 0.0

    @property
    def parameters(self) -> float:
        """Parameters that these shapes have (norms and biases left out), in thousand millions."""
        if self.attention == "mla":
            head = self.head_size + self.rope_size
            attention = (
                self.hidden * (self.query_rank + self.kv_rank + self.rope_size)
                + self.query_rank * self.heads * head
                + self.kv_rank * self.heads * 2 * self.head_size
                + self.heads * self.head_size * self.hidden
            )
        else:
            width = (2 * self.heads + 2 * self.kv_heads) * self.head_size
            attention = self.hidden * width
        if self.kind == "diffusion":  # self- and cross-attention; up and down, no gate
            layer = 2 * attention + 2 * self.hidden * self.intermediate
            return self.layers * layer / 1e9
        dense = 3 * self.hidden * self.intermediate
        routed = self.experts + self.shared_experts
        experts = 3 * self.hidden * self.expert_intermediate * routed + self.hidden * self.experts
        with_experts = self.layers - self.dense_layers if self.experts else 0
        ends = 2 * self.vocabulary * self.hidden
        work = (self.layers - with_experts) * dense + with_experts * experts
        return (self.layers * attention + work + ends) / 1e9


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="qwen3-8b", kind="dense", attention="gqa", layers=36, hidden=4096,
            intermediate=12288, heads=32, kv_heads=8, head_size=128, vocabulary=151936,
            published=8.2,
        ),
        Model(
            name="qwen3-32b", kind="dense", attention="gqa", layers=64, hidden=5120,
            intermediate=25600, heads=64, kv_heads=8, head_size=128, vocabulary=151936,
            published=32.8,
        ),
        Model(
            name="llama-3.1-70b", kind="dense", attention="gqa", layers=80, hidden=8192,
            intermediate=28672, heads=64, kv_heads=8, head_size=128, vocabulary=128256,
            published=70.6,
        ),
        Model(
            name="gpt-oss-120b", kind="moe", attention="gqa", layers=36, hidden=2880,
            intermediate=2880, heads=64, kv_heads=8, head_size=64, vocabulary=201088,
            expert_bytes=0.53, experts=128, experts_per_token=4, expert_intermediate=2880,
            published=116.8,
        ),
        Model(
            name="qwen3-235b-a22b", kind="moe", attention="gqa", layers=94, hidden=4096,
            intermediate=12288, heads=64, kv_heads=4, head_size=128, vocabulary=151936,
            experts=128, experts_per_token=8, expert_intermediate=1536, published=235.1,
        ),
        Model(
            name="deepseek-v3", kind="moe", attention="mla", layers=61, hidden=7168,
            intermediate=18432, heads=128, kv_heads=128, head_size=128, vocabulary=129280,
            weight_bytes=1.0, expert_bytes=1.0, experts=256, experts_per_token=8,
            expert_intermediate=2048, shared_experts=1, dense_layers=3, query_rank=1536,
            kv_rank=512, rope_size=64, published=671.0,
        ),
        Model(
            name="wan2.1-14b", kind="diffusion", attention="gqa", layers=40, hidden=5120,
            intermediate=13824, heads=40, kv_heads=40, head_size=128, vocabulary=0,
            published=14.3,
        ),
    )
}  # fmt: skip
"""The seven, by name; shapes as the ``config.json`` beside their weights has them."""
