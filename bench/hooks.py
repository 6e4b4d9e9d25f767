"""What hooks cost a step of vLLM's worker, on the thread that runs it.

The capture beneath is a double that does nothing: marks into the shared region are measured with
the shim. Prints the CPU time of an empty execute_model, as it is and hooked, with 256 running
requests, without and with trace contexts of requests.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "instrumentation" / "engines" / "fakes"))

STEPS = 20_000
REQUESTS = 256


class Nothing:
    """A capture that does nothing."""

    fd = -1

    @classmethod
    def start(cls, *_: object, **__: object) -> Nothing:
        return cls()

    def mark(self, *_: object) -> None: ...

    def say(self, _: bytes) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def main() -> None:
    for name, content in (
        ("cupti", {"Capture": Nothing}),
        ("helping", {"start_helper": lambda _fd, _settings: Nothing()}),
    ):
        module = ModuleType(f"kat_otel.instrumentation.{name}")
        vars(module).update(content)
        sys.modules[module.__name__] = module
    # Only now: what they import must find the doubles.
    from vllm.v1.core.sched.output import (  # noqa: PLC0415
        CachedRequestData,
        NewRequestData,
        SchedulerOutput,
    )
    from vllm.v1.worker.gpu_worker import Worker, config  # noqa: PLC0415

    from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure  # noqa: PLC0415

    os.environ["FAKE_STORE"] = tempfile.mkdtemp()
    names = [f"request-{number}" for number in range(REQUESTS)]
    tokens = dict.fromkeys(names, 1)
    output = SchedulerOutput([], CachedRequestData(names, [7] * REQUESTS), tokens, REQUESTS)
    worker = Worker(config(), 0, 0)

    def cost() -> float:
        best = float("inf")
        for _ in range(5):
            begin = time.thread_time()
            for _ in range(STEPS // 5):
                worker.execute_model(output)
                worker.sample_tokens(None)
            best = min(best, (time.thread_time() - begin) / (STEPS // 5))
        return 1e6 * best

    worker.init_device()
    bare = cost()
    ensure()
    hooked = cost()
    new = [NewRequestData(name) for name in names]
    for number, one in enumerate(new):
        one.kat_otel_trace = (f"{number + 1:032x}", f"{number + 1:016x}")
    worker.execute_model(SchedulerOutput(new, CachedRequestData(), {}, 0))
    linked = cost()
    KatInstrumentor().uninstrument()
    print(f"bare            {bare:7.2f} us a step")
    print(f"hooked          {hooked:7.2f} us a step, {hooked - bare:.2f} of it ours")
    print(f"with 16 links   {linked:7.2f} us a step, {linked - bare:.2f} of it ours")


if __name__ == "__main__":
    main()
