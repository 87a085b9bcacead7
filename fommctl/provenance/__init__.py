"""Where a result comes from: sidecars, signatures, and reading both."""
