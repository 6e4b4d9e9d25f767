"""The benchmark: programs of a step, their causal replay, faults put into them, and their spans.

Independent of the detector on purpose: nothing here imports :mod:`kat_otel.ttad`, because
this is what the detector is tested with.
"""
