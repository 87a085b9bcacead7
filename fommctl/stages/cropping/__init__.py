"""The parts of `fommctl crop`; `fommctl.stages.crop` puts them together."""
