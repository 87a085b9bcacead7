"""Render farms: files of a job for the engine, and the tasks that it runs."""
