"""Grafana dashboards as code: read ``fleet.py`` first, it is what an engineer opens first."""
