"""The noise of real traces, in figures: printed by ``python -m kat_otel.lmdia.fit_noise``.

Which traces stand behind them is said there.
"""

from __future__ import annotations

from kat_otel.lmdia.noise import LengthClass, NoiseModel, Spread

__all__ = ["FITTED"]

# fmt: off
FITTED = NoiseModel(
    kernels=(
        LengthClass(below_ns=5000.0, longest_ns=4832, spread=Spread((
            -0.2456, -0.1208, -0.08, -0.0351, -0.0146, -0.0, 0.0146, 0.0351, 0.08, 0.1208, 0.2456
        )), standing=0.0),
        LengthClass(below_ns=20000.0, longest_ns=18112, spread=Spread((
            -0.0903, -0.0778, -0.0493, -0.0241, -0.0117, 0.0, 0.0117, 0.0241, 0.0493, 0.0778, 0.0903
        )), standing=0.0084),
        LengthClass(below_ns=100000.0, longest_ns=90080, spread=Spread((
            -0.0154, -0.0154, -0.0141, -0.0089, -0.0054, 0.0, 0.0054, 0.0089, 0.0141, 0.0154, 0.0154
        )), standing=0.0061),
        LengthClass(below_ns=float("inf"), longest_ns=306065, spread=Spread((
            -0.0123, -0.0106, -0.0083, -0.0053, -0.003, 0.0, 0.003, 0.0053, 0.0083, 0.0106, 0.0123
        )), standing=0.0006),
    ),
    gap=(
        LengthClass(below_ns=10000.0, longest_ns=5380, spread=Spread((
            -0.2209, -0.2209, -0.181, -0.1132, -0.0678, 0.0, 0.0418, 0.1206, 0.2236, 0.2543, 0.2819
        )), standing=0.0),
        LengthClass(below_ns=30000.0, longest_ns=26227, spread=Spread((
            -0.1515, -0.131, -0.1025, -0.0593, -0.0265, 0.0, 0.0253, 0.0857, 0.6599, 1.2039, 1.6127
        )), standing=0.0),
        LengthClass(below_ns=100000.0, longest_ns=71348, spread=Spread((
            -0.1484, -0.1413, -0.1215, -0.0754, -0.0307, 0.0, 0.0472, 0.1199, 0.2722, 0.5761, 0.8447
        )), standing=0.0),
        LengthClass(below_ns=float("inf"), longest_ns=209439, spread=Spread((
            -0.1322, -0.1062, -0.0907, -0.0597, -0.0295, 0.0, 0.034, 0.0761, 0.1684, 0.3273, 0.462
        )), standing=0.0),
    ),
    call=(
        LengthClass(below_ns=10000.0, longest_ns=9054, spread=Spread((
            -0.1299, -0.1213, -0.0886, -0.0618, -0.0322, 0.0, 0.0297, 0.063, 0.1155, 0.4558, 1.5429
        )), standing=0.0),
        LengthClass(below_ns=float("inf"), longest_ns=26354, spread=Spread((
            -0.1059, -0.1059, -0.0907, -0.0553, -0.0328, 0.0, 0.0307, 0.0662, 0.1037, 0.2153, 0.2668
        )), standing=0.0),
    ),
    latency=(
        LengthClass(below_ns=10000.0, longest_ns=9980, spread=Spread((
            -0.1149, -0.0839, -0.0697, -0.0466, -0.0214, 0.0, 0.0238, 0.0428, 0.0714, 0.129, 1.2557
        )), standing=0.0),
        LengthClass(below_ns=float("inf"), longest_ns=27172, spread=Spread((
            -0.1934, -0.1934, -0.0948, -0.0476, -0.0202, 0.0, 0.0132, 0.0446, 0.078, 0.2099, 0.3184
        )), standing=0.0),
    ),
    transfer=(
        LengthClass(below_ns=float("inf"), longest_ns=27664, spread=Spread((
            -0.0129, -0.0123, -0.0106, -0.0075, -0.0046, 0.0, 0.0039, 0.0069, 0.0137, 0.022, 0.0253
        )), standing=0.0),
    ),
    start_ns=1800.0,
)
# fmt: on
