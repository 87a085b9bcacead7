"""Provenance of results: sidecars, signatures, and reading both."""
