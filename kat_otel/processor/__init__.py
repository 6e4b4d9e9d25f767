"""``kat process``: OTLP in, steps assembled and judged, OTLP out.

Read ``pipeline.py`` first: it alone shows the order of the steps.
"""
