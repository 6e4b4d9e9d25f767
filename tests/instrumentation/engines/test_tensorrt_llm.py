"""TensorRT-LLM's MPI workers: nothing but the environment puts the hooks on."""

from __future__ import annotations

from pathlib import Path

from kat_otel.instrumentation.capture.records import StepFlag
from tests.instrumentation.engines.programs import REPOSITORY, Programs

D, P = int(StepFlag.DECODE), int(StepFlag.PREFILL)

WORKER = """
from types import SimpleNamespace
from tensorrt_llm._torch.pyexecutor.py_executor import PyExecutor
import os
rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
mapping = SimpleNamespace(rank=rank, world_size=2, local_rank=rank, tp_rank=rank, tp_size=2,
    pp_rank=0, pp_size=1, moe_ep_rank=rank, moe_ep_size=2, enable_attention_dp=False)
executor = PyExecutor(SimpleNamespace(mapping=mapping))
batch = lambda context, generation: SimpleNamespace(
    context_requests=[0] * context, generation_requests=[0] * generation)
assert executor._forward_step(batch(1, 0)) == "outputs"
executor._forward_step(batch(0, 2))
executor._forward_step(batch(1, 2))
from kat_otel.instrumentation.session import session
assert session()._identifier.join(30)
"""


def start_file(folder: Path) -> str:
    """A folder for PYTHONPATH where Python runs our .pth line, as site-packages does."""
    line = (REPOSITORY / "kat_otel_start.pth").read_text()
    (folder / "sitecustomize.py").write_text(line)
    return str(folder)


def test_mpi_workers_are_hooked_ranked_and_share_the_launchers_namespace(
    programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "start").mkdir()
    path = start_file(tmp_path / "start")
    before = programs.environment()["PYTHONPATH"]
    done = programs.finish(
        [
            programs.start(
                WORKER,
                KAT_OTEL="on",
                PYTHONPATH=f"{path}:{before}",
                OMPI_COMM_WORLD_RANK=str(rank),
                OMPI_COMM_WORLD_SIZE="2",
                PMIX_NAMESPACE="prterun-node1-4711@2",
            )
            for rank in range(2)
        ]
    )
    assert done.code == 0, done.errors
    for pid in done.pids():
        assert done.begun(pid) == [(0, P), (1, D), (2, P | D)]
    workers = sorted(done.said("worker"), key=lambda w: w["resource"]["rank"])
    places = [[w["resource"][k] for k in ("rank", "tp", "pp", "dp", "ep")] for w in workers]
    assert places == [[0, 0, -1, -1, 0], [1, 1, -1, -1, 1]]
    assert {w["group_size"] for w in workers} == {2}
    assert len({w["nonce"] for w in workers}) == 1
