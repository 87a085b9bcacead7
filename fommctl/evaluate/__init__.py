"""Scoring models and finished results."""
