"""Recording and alerting rules of Prometheus as code: read ``incidents.py`` first."""
