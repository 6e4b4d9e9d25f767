"""Unit tests of the alerts on GPU time lost over the budget of 1 %.

They look between the five minutes of the subqueries: whether a window has both of its ends differs
between versions of Prometheus.
"""

from __future__ import annotations

from tests.rules.promtool import Case

_RANKS = {
    f'kat_rank_info{{kat_instance_id="llama", kat_rank="{rank}"}}': "1x1500" for rank in "0123"
}


def _lost(component: str) -> str:
    return (
        f'kat_gpu_lost_time_seconds_total{{kat_instance_id="llama", kat_component="{component}"}}'
    )


def _caused(rank: int) -> str:
    return f'kat_rank_caused_gpu_time_seconds_total{{kat_instance_id="llama", kat_rank="{rank}"}}'


_ACTION = (
    "Do: look at the worst ranks of the fleet's dashboard and at what they share (host, rack, "
    "switch); each component has its runbook."
)

BUDGET_CASES = [
    Case(
        "KatLostGpuTime",
        "page",
        # Of four GPUs' 240 s a minute 30 are lost: 12.5 %.
        fires={**_RANKS, _lost("nic"): "0+24x90", _lost("hbm"): "0+6x90", _caused(2): "0+30x90"},
        quiet=[
            {_lost("nic"): "0+12x90", _lost("hbm"): "0+6x90"},  # 7.5 %
            {_lost("nic"): "0+40x60 2400x30", _lost("hbm"): "0x90"},  # it has ended
            {_lost("nic"): "0x75 0+40x15", _lost("hbm"): "0x90"},  # it has only begun
        ],
        at="82m",
        labels={"kat_instance_id": "llama"},
        summary="llama lost 12.5% of its GPU time in the last hour",
        description=(
            "Where: nic (24m 0s), hbm (6m 0s); ranks 2 (30m 0s). "
            f"Cost: ten times the budget of 1 %: a day's is gone in 2.4 hours. {_ACTION}"
        ),
    ),
    Case(
        "KatLostGpuTime",
        "ticket",
        fires={**_RANKS, _lost("nic"): "0+9.6x760", _caused(2): "0+9.6x760"},  # 2 %
        quiet=[
            {_lost("nic"): "0+2.4x760"},  # 0.5 %
            {_lost("nic"): "0+9.6x650 6240x110"},  # it has ended
            {_lost("nic"): "0x600 0+9.6x160"},  # five hours of 2 % are 0.4 % of the day
        ],
        at="25h4m",
        every="2m",
        labels={"kat_instance_id": "llama"},
        summary="llama lost 2% of its GPU time in the last day",
        description=(
            "Where: nic (1h 55m 12s); ranks 2 (1h 55m 12s). "
            f"Cost: more than the budget of 1 %. {_ACTION}"
        ),
    ),
]
