"""The benchmark's cases: which there are, how each is played, and how it is written to files."""
