"""Network and IPAM plugins; a missing plugin is reported with Docker's message."""

from __future__ import annotations

from wherry.errors import NotFound
from wherry.linux.plugins import Plugin, Plugins


def find(plugins: Plugins, name: str, kind: str) -> Plugin:
    """As :meth:`Plugins.find`."""
    try:
        return plugins.find(name, kind)
    except NotFound as e:
        raise NotFound(f'plugin "{name[:64]}" not found') from e
