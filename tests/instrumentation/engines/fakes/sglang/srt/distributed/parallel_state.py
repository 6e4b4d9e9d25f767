from types import SimpleNamespace

_groups = {}


def set_up(*, rank, tp, pp):
    _groups["world"] = SimpleNamespace(rank=rank, world_size=tp * pp, local_rank=rank)
    _groups["tp"] = SimpleNamespace(rank_in_group=rank % tp)
    _groups["pp"] = SimpleNamespace(rank_in_group=rank // tp)
    _groups["moe_ep"] = SimpleNamespace(rank_in_group=rank % tp)


def get_world_group():
    return _groups["world"]


def get_tp_group():
    return _groups["tp"]


def get_pp_group():
    return _groups["pp"]


def get_moe_ep_group():
    return _groups["moe_ep"]
