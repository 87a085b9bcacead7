"""What the commands do, one module a stage, each with a `run` function; no typer, no rich, no PyAV."""
