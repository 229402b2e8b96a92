"""Fetch the files of a project that lie elsewhere (``remotes`` says which)."""

from __future__ import annotations

import os

from wherry.compose import artifact, gitfiles
from wherry.compose.remotes import OCI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from wherry.client.api import Api

    Lend = Callable[[], AbstractContextManager[Api]]


class RemoteFiles:
    """Fetches them. ``lend`` lends a connection to the daemon, which asks registries for this client."""

    def __init__(self, lend: Lend, config_dir: str) -> None:
        self._lend, self._config_dir = lend, config_dir
        self._found: dict[str, str] = {}

    def fetch(self, name: str) -> str:
        """The path of a Compose file on this machine.

        :raises ComposeError: it cannot be fetched, or is not what it should be.
        """
        if name not in self._found:
            self._found[name] = self._fetched(name)
        return self._found[name]

    def _fetched(self, name: str) -> str:
        if name.startswith(OCI):
            with self._lend() as api:
                return artifact.fetch(api, name.removeprefix(OCI), cache("oci"), self._config_dir)
        return gitfiles.fetch(name, cache("git"))


def cache(kind: str) -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "wherry", "compose", kind)
