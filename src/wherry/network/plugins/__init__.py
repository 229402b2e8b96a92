"""Networks and addresses of plugins, in the words that Docker has for those that are not there."""

from __future__ import annotations

from wherry.errors import NotFound
from wherry.linux.plugins import Plugin, Plugins


def find(plugins: Plugins, name: str, kind: str) -> Plugin:
    """As :meth:`Plugins.find`."""
    try:
        return plugins.find(name, kind)
    except NotFound as e:
        raise NotFound(f"could not find plugin {name[:64]} in v1 plugin registry: {e.message}") from e
