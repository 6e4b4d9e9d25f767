from sglang.srt.model_executor.model_runner import ModelRunner


class Scheduler:
    def __init__(self, server_args, gpu_id, rank):
        self.server_args = server_args
        self.runner = ModelRunner(server_args, gpu_id, rank)
        self.forward_ct = 0

    def run_batch(self, batch, pp_proxy_tensors=None):
        self.forward_ct += 1
        if batch.forward_mode.is_prebuilt():
            if batch.inner_idle_batch is not None:
                return self.run_batch(batch.inner_idle_batch)
            return "nothing"
        return "result"
