from types import SimpleNamespace

parallel = SimpleNamespace(attn_dp_rank=0, dp_rank=None)


def get_parallel():
    return parallel
