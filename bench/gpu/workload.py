"""What runs under capture: a decode-like model on the GPU, or the stand-in's load."""

from __future__ import annotations

import statistics
import time
from typing import Any, Protocol

__all__ = ["Counted", "Eager", "Graphed", "Rehearsed", "Workload", "timed"]


class Workload(Protocol):
    """A step that can be run again and again."""

    kernels: int
    """Kernels that a step launches; 0 where only the driver knows."""

    def step(self) -> None:
        """Runs one step and waits for its end."""
        ...


def timed(workload: Workload, seconds: float, *, warm: float = 1.0) -> tuple[float, int]:
    """Returns the median time of a step in seconds, and how many steps ran."""
    end = time.monotonic() + warm
    while time.monotonic() < end:
        workload.step()
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        workload.step()
        times.append(time.perf_counter() - began)
    return statistics.median(times), len(times)


class Counted:
    """So many additions, one kernel each: a number that needs no tool to know."""

    def __init__(self, kernels: int = 1_000) -> None:
        import torch  # noqa: PLC0415 - the rehearsal has no torch

        self._torch: Any = torch
        self._x = torch.zeros(1_024, device="cuda")
        self.kernels = kernels

    def step(self) -> None:
        for _ in range(self.kernels):
            self._x.add_(1.0)
        self._torch.cuda.synchronize()


class Eager:
    """A decode step of a transformer, kernel by kernel: small, so that the host is the limit."""

    def __init__(self, layers: int = 32, width: int = 2_048, batch: int = 16) -> None:
        import torch  # noqa: PLC0415 - the rehearsal has no torch

        self._torch: Any = torch
        self._layers = layers
        make: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
        self._x = torch.randn(batch, width, **make)
        self._norm = torch.randn(width, **make)
        self._qkv = torch.randn(width, 3 * width, **make) * 0.01
        self._out = torch.randn(width, width, **make) * 0.01
        self._up = torch.randn(width, 4 * width, **make) * 0.01
        self._down = torch.randn(4 * width, width, **make) * 0.01
        self.kernels = 0
        self._torch.set_grad_enabled(False)
        self.step()

    def forward(self) -> Any:
        torch = self._torch
        x = self._x
        for _ in range(self._layers):
            h = torch.nn.functional.rms_norm(x, x.shape[-1:], self._norm)
            q, k, v = (h @ self._qkv).chunk(3, dim=-1)
            x = x + (torch.softmax(q @ k.T, dim=-1) @ v) @ self._out
            h = torch.nn.functional.rms_norm(x, x.shape[-1:], self._norm)
            x = x + torch.nn.functional.silu(h @ self._up) @ self._down
        return x

    def step(self) -> None:
        self.forward()
        self._torch.cuda.synchronize()


class Graphed(Eager):
    """The same step as one CUDA graph."""

    def __init__(self, layers: int = 32, width: int = 2_048, batch: int = 16) -> None:
        super().__init__(layers, width, batch)
        self._graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(self._graph):
            self.forward()
        self.step()

    def step(self) -> None:
        self._graph.replay()
        self._torch.cuda.synchronize()


class Rehearsed:
    """No GPU: the stand-in libcupti emits the records of so many kernels."""

    def __init__(self, standin: Any, kernels: int = 1_000) -> None:
        self._standin = standin
        self.kernels = kernels

    def step(self) -> None:
        self._standin.load(self.kernels, 200_000)
        self._standin.wait()
