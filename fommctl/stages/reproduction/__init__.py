"""The parts of `reproduce`."""
