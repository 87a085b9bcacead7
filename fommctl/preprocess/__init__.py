"""Conversion of raw data sets to the training layout."""
