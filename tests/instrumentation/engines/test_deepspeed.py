"""DeepSpeed's engines: each forward pass is a step, ranks are the launcher's."""

from __future__ import annotations

import pytest

from tests.instrumentation.engines.programs import Programs


@pytest.mark.parametrize(
    "call",
    [
        "from deepspeed.inference.engine import InferenceEngine as E; E().forward(1)",
        "from deepspeed.inference.v2.engine_v2 import InferenceEngineV2 as E; E().put([1], [2])",
        "from deepspeed.runtime.engine import DeepSpeedEngine as E; E().forward(1)",
    ],
)
def test_a_forward_pass_is_a_step(programs: Programs, call: str) -> None:
    done = programs.run(
        f"""
        from kat_otel.instrumentation.instrumentor import ensure
        from kat_otel.instrumentation.session import session
        ensure()
        import deepspeed
        for _ in range(2):
            {call}
        assert session()._identifier.join(30)
        """,
        RANK="3",
        WORLD_SIZE="8",
        LOCAL_RANK="1",
        TORCHELASTIC_RUN_ID="job-7",
    )
    assert [step for step, _ in done.begun()] == [0, 1]
    (worker,) = done.said("worker")
    assert (worker["resource"]["rank"], worker["group_size"]) == (3, 8)
    assert worker["resource"]["attributes"]["kat.engine"] == "deepspeed"
    assert worker["resource"]["device"] == 1
