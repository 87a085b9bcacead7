"""What is looked at in a process of its own: each module has `look(what)`, which returns JSON values or raises."""
