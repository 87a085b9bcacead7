"""The parts of `fommctl train`; `fommctl.stages.train` puts them together."""
