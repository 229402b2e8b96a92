"""Containers: create, start, change, stop and remove them, and everything one owns while it exists."""
