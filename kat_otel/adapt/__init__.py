"""Domain adaptation: examples with a known truth, and how right a model is on unseen ones."""
