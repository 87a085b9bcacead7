"""Weights and how they become a model: registry, downloads, checkpoints."""
