"""The inference engine: the core's networks, rewritten for speed with the same results."""
