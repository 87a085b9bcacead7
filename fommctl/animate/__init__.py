"""Animating a still source with the motion of a driving video."""
