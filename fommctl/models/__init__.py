"""Where weights come from and how they become a model: registry, downloads, checkpoints."""
