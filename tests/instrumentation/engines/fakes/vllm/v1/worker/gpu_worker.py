import os
from types import SimpleNamespace

import torch.distributed

from vllm.distributed import parallel_state


class Worker:
    def __init__(self, vllm_config, local_rank, rank):
        self.vllm_config, self.local_rank, self.rank = vllm_config, local_rank, rank
        self.forwards = 0
        self.run = lambda: None  # a test's own model

    def init_device(self):
        parallel = self.vllm_config.parallel_config
        tp, pp = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
        dp = parallel.data_parallel_size
        rank = parallel.data_parallel_rank * tp * pp + self.rank
        torch.distributed.init_process_group(world_size=tp * pp * dp, rank=rank)
        parallel_state.set_up(rank=rank, tp=tp, pp=pp, dp=dp, moe=parallel.enable_expert_parallel)

    def execute_model(self, scheduler_output):
        if os.environ.get("FAKE_MODEL_FAILS"):
            raise RuntimeError("CUDA error: device-side assert triggered")
        self.run()
        self.forwards += scheduler_output.total_num_scheduled_tokens > 0
        return None if scheduler_output.total_num_scheduled_tokens else SimpleNamespace()

    def sample_tokens(self, grammar_output):
        return SimpleNamespace()

    def execute_dummy_batch(self) -> None:
        self.forwards += 1


def config(*, tp=1, pp=1, dp=1, dp_rank=0, dp_index=None, experts=False, transfer=None):
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            tensor_parallel_size=tp,
            pipeline_parallel_size=pp,
            data_parallel_size=dp,
            data_parallel_rank=dp_rank,
            data_parallel_index=dp_rank if dp_index is None else dp_index,
            enable_expert_parallel=experts,
        ),
        model_config=SimpleNamespace(model="meta-llama/Llama-3.1-8B"),
        kv_transfer_config=transfer,
    )
