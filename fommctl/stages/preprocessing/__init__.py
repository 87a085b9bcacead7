"""The parts of `fommctl preprocess`; `fommctl.stages.preprocess` puts them together."""
