"""Methods run on the benchmark's cases, and what is made of what they say."""
