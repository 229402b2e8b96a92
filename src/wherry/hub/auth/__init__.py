"""Who asks, and what he may do: passwords, personal tokens, bearer tokens and their revocation."""
