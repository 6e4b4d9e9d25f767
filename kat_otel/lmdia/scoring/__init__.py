"""The benchmark's scorer: what was said beside what is true, at three levels."""
