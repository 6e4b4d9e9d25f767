"""Training a model on the examples, and what comes out of it for servers to load."""
