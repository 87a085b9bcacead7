"""Cutting square clips of subjects out of videos and pictures."""
