"""To be drawn by its owner."""

TABLES = ""
