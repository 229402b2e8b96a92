"""What concerns the host as a whole: start-up, disk usage, checks, prune, clean-up rules."""
