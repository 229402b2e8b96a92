"""Images: on this host, from registries and to them."""
