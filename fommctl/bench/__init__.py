"""Measuring how fast the model runs and trains here, and how exactly."""
