"""A tiny synthetic data set for tests."""
