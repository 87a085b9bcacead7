"""Evaluation of models and of finished results."""
