"""Turning raw data sets into the training layout."""
