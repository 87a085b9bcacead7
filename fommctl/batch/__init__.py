"""Many animations from one file of jobs."""
