"""Kernel spans and digests from inside an inference worker, at a stated and bounded cost."""
