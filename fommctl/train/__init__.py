"""Training a model from a preset and a folder of clips."""
