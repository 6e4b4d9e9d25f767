"""What CUPTI (or torch.profiler) says of this process, as columns."""
