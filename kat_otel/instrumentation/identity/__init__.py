"""Who the worker is: its rank, the instance's nonce, and where it runs."""
