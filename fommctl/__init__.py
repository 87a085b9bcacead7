"""fommctl animates a still image with the motion of a video (First Order Motion Model, NeurIPS 2019)."""

__version__ = "0.1.0"
