"""A small tensor-parallel model over gloo, as anybody would write it: it knows nothing of KAT-OTel.

torchrun --nproc-per-node 2 tensor_parallel.py STEPS
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

WIDTH, LAYERS, TOKENS = 768, 24, 64


class Block(nn.Module):
    """An MLP split over the ranks: columns of the first weight, rows of the second."""

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH // ranks, bias=False)
        self.down = nn.Linear(4 * WIDTH // ranks, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        partial = self.down(nn.functional.silu(self.up(x)))
        dist.all_reduce(partial)
        return x + partial


class Model(nn.Module):
    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(ranks) for _ in range(LAYERS))

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = Model(dist.get_world_size())
    x = torch.randn(TOKENS, WIDTH)
    with torch.inference_mode():
        for step in range(int(sys.argv[1])):
            model(x)
            time.sleep(0.02)  # the next tokens are not there yet
            if dist.get_rank() == 0 and step % 10 == 9:
                print(f"step {step}", flush=True)  # noqa: T201
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
