"""See ``__main__.py``: what only an NVIDIA GPU can show."""
