"""Groups of tensor, pipeline and data parallelism, laid out as vLLM lays them out."""

from types import SimpleNamespace

_groups = {}


def set_up(*, rank, tp, pp, dp, moe):
    size = tp * pp * dp
    place = {"tp": rank % tp, "pp": rank // tp % pp, "dp": rank // (tp * pp)}
    _groups["world"] = SimpleNamespace(
        rank=rank, world_size=size, rank_in_group=rank, local_rank=rank
    )
    for name, at in place.items():
        _groups[name] = SimpleNamespace(rank_in_group=at)
    if moe:
        _groups["ep"] = SimpleNamespace(rank_in_group=place["dp"] * tp + place["tp"])


def _get(name):
    assert name in _groups, f"{name} group is not initialized"
    return _groups[name]


def get_world_group():
    return _get("world")


def get_tp_group():
    return _get("tp")


def get_pp_group():
    return _get("pp")


def get_dp_group():
    return _get("dp")


def get_ep_group():
    return _get("ep")
