"""Measurements of speed and accuracy, in rendering and training."""
