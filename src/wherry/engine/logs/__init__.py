"""Container output: stored while containers run, and read."""
