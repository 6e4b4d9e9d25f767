"""From steps to the collector: what leaves, packed by hand, kept in bounds; in a helper process."""
