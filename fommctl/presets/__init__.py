"""Named configurations: their schema, reading and checking them."""
