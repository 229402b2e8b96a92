"""Requests to other servers: registries to copy from and to, and addresses that users give."""
