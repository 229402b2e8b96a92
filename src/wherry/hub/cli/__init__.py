"""``wherry-hub``: configuration, commands, and the composition root of the hub."""
