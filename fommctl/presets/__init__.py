"""Named configurations: their schema, and how they are read, merged and validated."""
