"""The mathematics of motion transfer on tensors: no files, no plugins, no command line."""
