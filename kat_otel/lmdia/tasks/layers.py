"""The layers of a model on one batch: attention, then a dense network, experts or a diffusion's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from kat_otel.lmdia.program import Floats, Mask
from kat_otel.lmdia.tasks.builder import GAP_NS, LAYER_GAP_NS, OVERLAPPED, Builder
from kat_otel.lmdia.tasks.names import Part
from kat_otel.lmdia.tasks.task import Task, Work
from kat_otel.spans import UNKNOWN

__all__ = ["Layers"]

_ALL_REDUCE_FLOOR_NS: Final = 9_000.0
_ALL_TO_ALL_FLOOR_NS: Final = 14_000.0
_LARGE: Final = 512 * 1024
"""Bytes from which an all-reduce is the library's ring, not the engine's own kernel."""

_PERSISTENT: Final = 132.0
"""Blocks of kernels that stay on their multiprocessors and take work as it comes."""

_MOST_HOSTS: Final = 4
"""Hosts that the experts of one token are on, at most (DeepSeek-V3's routing)."""

_TEXT_TOKENS: Final = 512
"""Of a diffusion's prompt, which its cross attention looks at."""


class Layers:
    """Adds layers of a task's model to a step.

    Args:
        task: model, engine, layout.
        work: of this batch.
        builder: of the step.
        names: of the kernels.

    Attributes:
        tokens: ``(r,)``, tokens that each rank's replica has in this batch.
        sampled: ``(r,)``, of them, those that a next token is sampled for.
        whole: whether all layers are one CUDA graph, as in a pure decode.
    """

    def __init__(self, task: Task, work: Work, builder: Builder, names: Mapping[Part, str]) -> None:
        self._task, self._work, self._b, self._names = task, work, builder, names
        model, layout = task.model, task.layout
        self._tp = layout.tp
        share = np.ones(len(builder.resources))
        if work.replicas:
            share = np.array([work.replicas[r.dp] for r in builder.resources])
        self._prompts = np.ceil(work.prompt_tokens * share)
        self._decoded = np.ceil(work.sequences * share)
        self.tokens: Floats = self._prompts + self._decoded
        if model.kind == "diffusion":  # the sequence is what its ranks share
            self.tokens = np.ceil(self.tokens / layout.tp)
        self.sampled: Floats = self._decoded + (self._prompts > 0)
        self.whole = (work.prompt_tokens == 0) and model.kind != "diffusion"
        if self.whole:  # a captured graph pads every replica to the largest
            self.tokens = np.full_like(self.tokens, self.tokens.max())
        places = [(r.dp, r.pp) for r in builder.resources]
        self._groups: dict[tuple[int, int], Mask] = {
            place: np.array([p == place for p in places]) for place in sorted(set(places))
        }
        self._pieces = not self.whole and task.engine == "vllm" and task.load == "mixed"
        self._eight = 8 if model.weight_bytes == 1.0 else 16

    @property
    def mean_tokens(self) -> float:
        """Tokens of a rank on average."""
        return float(self.tokens.mean())

    @property
    def mean_sampled(self) -> float:
        """Sampled tokens of a rank on average."""
        return float(self.sampled.mean())

    def embed(self) -> None:
        """Looks tokens up; a diffusion has its latents already."""
        if self._task.model.kind == "diffusion":
            return
        self._b.host("model.embed_tokens")
        self._kernel("gather", nbytes=2.0 * self.tokens * self._task.model.hidden)
        self._all_reduce()

    def layer(self, index: int) -> None:
        """Adds one layer."""
        layer = self._b.host(f"model.layers.{index}")
        if self._task.model.kind == "diffusion":
            self._diffusion(layer)
            return
        self._attention(layer)
        if self._task.model.experts and index >= self._dense:
            self._experts(layer, index)
        else:
            self._dense_network(layer)

    def head(self) -> None:
        """Adds the logits."""
        model = self._task.model
        if model.kind == "diffusion":
            return
        self._b.host("logits")
        self._gemm("logits", self.sampled, model.hidden, model.vocabulary // self._tp, width=2.0)
        nbytes = 2.0 * self.mean_sampled * model.vocabulary / self._tp
        self._within_replicas("all_gather", nbytes, _ALL_REDUCE_FLOOR_NS + self._over_link(nbytes))

    @property
    def _dense(self) -> int:
        return min(self._task.model.dense_layers, 1)  # of as many as are left of all layers

    def _attention(self, layer: int) -> None:
        m, b = self._task.model, self._b
        with b.graph(captured=self._pieces):
            b.host("self_attn", layer)
            self._kernel("norm", nbytes=8.0 * self.tokens * m.hidden, gap=LAYER_GAP_NS)
            if m.attention == "mla":
                self._latent_projections()
            else:
                heads, kv_heads = m.heads // self._tp, max(1, m.kv_heads // self._tp)
                width = (heads + 2 * kv_heads) * m.head_size
                self._gemm("qkv", self.tokens, m.hidden, width)
                self._kernel("rope", nbytes=4.0 * self.tokens * width)
        self._attend()
        with b.graph(captured=self._pieces):
            self._gemm("out", self.tokens, m.heads // self._tp * m.head_size, m.hidden)
            self._all_reduce()

    def _latent_projections(self) -> None:
        m = self._task.model
        narrow = m.query_rank + m.kv_rank + m.rope_size
        heads = m.heads // self._tp
        self._kernel("quantise", nbytes=3.0 * self.tokens * m.hidden)
        self._gemm("qkv", self.tokens, m.hidden, narrow)
        self._kernel("norm", nbytes=4.0 * self.tokens * narrow)
        self._gemm("qkv", self.tokens, m.query_rank, heads * (m.head_size + m.rope_size))
        self._kernel("rope", nbytes=4.0 * self.tokens * heads * m.rope_size)

    def _attend(self) -> None:
        """Writes the cache and attends: prompts are bound by operations, decoding by memory."""
        m, context = self._task.model, self._work.context
        heads = m.heads // self._tp
        latent = m.attention == "mla"
        kv = m.kv_rank + m.rope_size if latent else 2 * max(1, m.kv_heads // self._tp) * m.head_size
        self._kernel("cache", nbytes=4.0 * self.tokens * kv)
        decode: Part = "latent" if latent else "attention"
        per_pair = 2.0 * (2 * m.kv_rank + m.rope_size) if latent else 4.0 * m.head_size
        if self._work.sequences:
            self._kernel(
                decode,
                nbytes=2.0 * self._decoded * context * kv,
                flop=per_pair * self._decoded * context * heads,
                grid=self._decoded,
            )
        if self._work.prompt_tokens:
            per_pair = 2.0 * (2 * m.head_size + m.rope_size) if latent else 4.0 * m.head_size
            self._kernel(
                "prefill_attention",
                nbytes=2.0 * (self._prompts + context) * kv,
                flop=per_pair * self._prompts * context * heads,
                grid=self._prompts / 128 * heads,
            )

    def _dense_network(self, layer: int) -> None:
        m, b = self._task.model, self._b
        with b.graph(captured=self._pieces):
            b.host("mlp", layer)
            self._kernel("norm", nbytes=8.0 * self.tokens * m.hidden)
            width = m.intermediate // self._tp
            self._gemm("gate_up", self.tokens, m.hidden, 2 * width)
            self._kernel("act", nbytes=6.0 * self.tokens * width)
            self._gemm("down", self.tokens, width, m.hidden)
            self._all_reduce()

    def _experts(self, layer: int, index: int) -> None:
        m, b, ep = self._task.model, self._b, self._task.layout.ep
        with b.graph(captured=self._pieces):
            b.host("mlp.experts", layer)
            self._kernel("norm", nbytes=8.0 * self.tokens * m.hidden)
            before = b.last
            self._kernel(
                "router", nbytes=4.0 * self.tokens * m.experts + 2.0 * m.hidden * m.experts
            )
            if ep > 1:
                self._all_to_all("dispatch", 1.0)
            shared = self._shared_expert(before)
            self._routed(index)
            if ep > 1:
                self._all_to_all("combine", 2.0)
            self._kernel(
                "scatter",
                nbytes=2.0 * self.tokens * m.hidden * (m.experts_per_token + 1),
                after=shared,
            )
            if ep == 1:
                self._all_reduce()

    def _shared_expert(self, before: int) -> tuple[int, ...]:
        """Runs on a stream of its own, beside the way of tokens to the experts and back."""
        m, b = self._task.model, self._b
        if not m.shared_experts:
            return ()
        with b.beside(OVERLAPPED):
            width = m.expert_intermediate * m.shared_experts
            self._gemm("gate_up", self.tokens, m.hidden, 2 * width, after=(before,))
            self._kernel("act", nbytes=6.0 * self.tokens * width)
            self._gemm("down", self.tokens, width, m.hidden)
        return (b.last,)

    def _routed(self, index: int) -> None:
        m, ep = self._task.model, self._task.layout.ep
        ranks = self._b.resources
        # Tokens of all replicas meet; without expert parallelism each rank has a slice of all.
        visits = m.experts_per_token * (
            self.mean_tokens * self._task.layout.dp / ep if ep > 1 else self.tokens
        )
        load = np.ones(len(ranks))
        if ep > 1:
            rest = (ep - self._work.expert_load) / (ep - 1)
            busiest = (self._work.busiest + 5 * index) % ep  # another one in every layer
            load = np.array([self._work.expert_load if r.ep == busiest else rest for r in ranks])
        visits = visits * load
        width = m.expert_intermediate if ep > 1 else m.expert_intermediate // self._tp
        mine = m.experts / ep
        used = mine * (1 - np.exp(-visits / mine))  # experts that any token visits
        bits = 4 if m.expert_bytes < 1 else 8 if m.expert_bytes == 1 else 16
        for part, wide in (("experts_up", 2 * width), ("experts_down", width)):
            name: Part = "experts_up" if part == "experts_up" else "experts_down"
            self._kernel(
                name,
                nbytes=m.expert_bytes * used * m.hidden * wide + 2.0 * visits * (m.hidden + wide),
                flop=2.0 * visits * m.hidden * wide,
                bits=bits,
                grid=_PERSISTENT,
            )
            if part == "experts_up" and self._task.gpu.name != "B200":  # fused there
                self._kernel("experts_act", nbytes=6.0 * visits * width)

    def _diffusion(self, layer: int) -> None:
        """A block of a diffusion transformer whose sequence is spread by Ulysses' all-to-alls."""
        m, b = self._task.model, self._b
        whole = self.tokens * self._tp
        b.host("attn1", layer)
        self._kernel("modulate", nbytes=4.0 * self.tokens * m.hidden, gap=LAYER_GAP_NS)
        self._gemm("qkv", self.tokens, m.hidden, 3 * m.hidden)
        self._kernel("norm", nbytes=8.0 * self.tokens * m.hidden)
        self._kernel("rope", nbytes=8.0 * self.tokens * m.hidden)
        self._exchange(3.0)
        heads = m.heads / self._tp
        self._kernel(
            "prefill_attention",
            nbytes=8.0 * whole * heads * m.head_size,
            flop=4.0 * whole**2 * heads * m.head_size,
        )
        self._exchange(1.0)
        self._gemm("out", self.tokens, m.hidden, m.hidden)
        b.host("attn2", layer)
        self._kernel("norm", nbytes=8.0 * self.tokens * m.hidden)
        self._gemm("out", self.tokens, m.hidden, m.hidden)
        self._kernel(
            "prefill_attention",
            nbytes=4.0 * self.tokens * m.hidden,
            flop=4.0 * self.tokens * _TEXT_TOKENS * m.hidden,
        )
        self._gemm("out", self.tokens, m.hidden, m.hidden)
        b.host("ffn", layer)
        self._kernel("modulate", nbytes=4.0 * self.tokens * m.hidden)
        self._gemm("gate_up", self.tokens, m.hidden, m.intermediate)
        self._kernel("act", nbytes=4.0 * self.tokens * m.intermediate)
        self._gemm("down", self.tokens, m.intermediate, m.hidden)
        self._kernel("add", nbytes=6.0 * self.tokens * m.hidden)

    def _kernel(
        self,
        part: Part,
        *,
        nbytes: float | Floats,
        flop: float | Floats = 0.0,
        bits: int = 16,
        grid: float | Floats = 0.0,
        gap: float = GAP_NS,
        after: tuple[int, ...] = (),
    ) -> None:
        self._b.kernel(
            self._names[part],
            nbytes=nbytes,
            flop=flop,
            bits=bits,
            grid=self.tokens / 16 if np.ndim(grid) == 0 and grid == 0 else grid,
            gap=gap,
            after=after,
        )

    def _gemm(
        self,
        part: Part,
        rows: Floats,
        inner: int,
        outer: int,
        *,
        width: float = UNKNOWN,
        after: tuple[int, ...] = (),
    ) -> None:
        size = self._task.model.weight_bytes if width == UNKNOWN else width
        self._kernel(
            part,
            nbytes=size * inner * outer + 2.0 * rows * (inner + outer),
            flop=2.0 * rows * inner * outer,
            bits=self._eight if size == 1.0 else 16,
            grid=np.ceil(outer / 128) * np.ceil(rows / 128),
            after=after,
        )

    def _all_reduce(self) -> None:
        if self._tp == 1:
            return
        nbytes = 2.0 * self.mean_tokens * self._task.model.hidden
        part: Part = "ring_all_reduce" if nbytes > _LARGE else "all_reduce"
        moved = 2.0 * (self._tp - 1) / self._tp * nbytes
        self._within_replicas(part, nbytes, _ALL_REDUCE_FLOOR_NS + self._over_link(moved))

    def _within_replicas(self, part: Part, nbytes: float, own: float) -> None:
        """Adds a collective of the tensor-parallel ranks of each replica and stage."""
        if self._tp == 1:
            return
        members = self._b.members
        for (dp, pp), group in self._groups.items():
            there: Mask = members & group
            if there.any():
                self._b.members = there
                self._b.collective(self._names[part], f"tp:{dp}.{pp}", nbytes=nbytes, own=own)
        self._b.members = members

    def _all_to_all(self, part: Part, width: float) -> None:
        """Sends tokens to their experts, or back, over hosts where they are spread so far."""
        m, layout = self._task.model, self._task.layout
        each = width * self.mean_tokens * m.hidden / self._tp
        nbytes = each * m.experts_per_token
        there = min(layout.per_host, layout.ep)
        apart = 1.0 - there / layout.ep
        # A token goes to another host once, however many of its experts are there.
        across = each * min(_MOST_HOSTS, m.experts_per_token) * apart
        own = max(self._over_link(nbytes * (1 - apart)), across / self._task.gpu.nic)
        self._b.collective(self._names[part], "ep", nbytes=nbytes, own=_ALL_TO_ALL_FLOOR_NS + own)

    def _exchange(self, width: float) -> None:
        nbytes = 2.0 * width * self.mean_tokens * self._task.model.hidden
        moved = nbytes * (self._tp - 1) / self._tp
        self._within_replicas("all_to_all", nbytes, _ALL_TO_ALL_FLOOR_NS + self._over_link(moved))

    def _over_link(self, nbytes: float) -> float:
        return nbytes / self._task.gpu.link / 0.8
