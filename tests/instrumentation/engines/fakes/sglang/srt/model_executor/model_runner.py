import torch.distributed

from sglang.srt.distributed import parallel_state


class ModelRunner:
    def __init__(self, server_args, gpu_id, rank):
        self.server_args, self.gpu_id, self.rank = server_args, gpu_id, rank
        self.init_torch_distributed()

    def init_torch_distributed(self):
        tp, pp = self.server_args.tp_size, self.server_args.pp_size
        torch.distributed.init_process_group(world_size=tp * pp, rank=self.rank)
        parallel_state.set_up(rank=self.rank, tp=tp, pp=pp)
