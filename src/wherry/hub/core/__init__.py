"""Values and their rules, without input or output."""
