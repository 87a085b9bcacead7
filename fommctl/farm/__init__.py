"""One shot for a render farm: files for its engine, and the tasks that the engine runs."""
