"""A driver for each volume plugin of this host (docs.docker.com/engine/extend/plugins_volume).

A plugin's data belong to the plugin: other hosts may use them, and its volumes may be older than this daemon.
So it is never asked to delete volumes that this daemon does not know, and creating a volume that it has
already adopts it.

    <root>/volumes/.plugins/<name>/<volume id>    where a mounted volume is; removed when it is unmounted
    <root>/volumes/.plugins/<name>/.scope         the scope that the plugin reported last

With these files a new daemon can unmount what no container uses any more after its predecessor was killed,
and lists need no request to a plugin.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wherry.errors import Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux import files
from wherry.linux.plugins import Plugins
from wherry.model import paths

_SCOPE = ".scope"
_SHORT = 5.0
"""Seconds for requests that only ask."""


class PluginDriver:
    """The plugin is not contacted before its first volume is created or mounted."""

    remote = True

    def __init__(self, name: str, plugins: Plugins, root: Path) -> None:
        """:param name: a valid plugin name. :param root: ``<root>/volumes``."""
        self._name, self._plugins = name, plugins
        self._marks = paths.below(root / ".plugins", name, what="plugin name")
        self._paths = {name: Path((self._marks / name).read_text()) for name in self.mounted()}

    @property
    def name(self) -> str:
        return self._name

    @property
    def scope(self) -> str:
        try:
            return (self._marks / _SCOPE).read_text()
        except OSError:
            return "local"

    def check_options(self, options: Mapping[str, str]) -> None:
        """The plugin itself checks options; here only its existence is checked.

        :raises NotFound: there is none of that name. :raises Unavailable: it does not answer.
        """
        self._plugins.find(self._name, "VolumeDriver")

    def create(self, volume_id: str, options: Mapping[str, str]) -> None:
        """Create it, or adopt it if the plugin has it."""
        self.check_options(options)
        self._note_scope()
        if not self._has(volume_id):
            self._call("Create", {"Name": volume_id, "Opts": dict(options)})

    def _note_scope(self) -> None:
        try:
            found = self._call("Capabilities", {}, timeout=_SHORT).get("Capabilities")
        except Internal:
            found = None  # plugins older than Docker 1.12 do not have this method
        scope = str(found.get("Scope", "")).lower() if isinstance(found, dict) else ""
        self._write(_SCOPE, scope if scope in ("local", "global") else "local")

    def _has(self, volume_id: str) -> bool:
        try:
            found = self._call("Get", {"Name": volume_id}, timeout=_SHORT).get("Volume")
        except Internal:
            return False
        return isinstance(found, dict) and bool(found.get("Name"))

    def remove(self, volume_id: str) -> None:
        try:
            self._call("Remove", {"Name": volume_id})
        except Internal:
            if self._has(volume_id):
                raise

    def discard(self) -> None:
        return

    def mount(self, volume_id: str, options: Mapping[str, str]) -> Path:
        if volume_id in self._paths:
            # If it were mounted twice, it would have to be unmounted twice.
            known = self._call("Path", {"Name": volume_id}, timeout=_SHORT)
            if known.get("Mountpoint"):
                return self._mounted(volume_id, known)
        # The mark comes first: if the daemon is killed, the next one unmounts what may have been mounted.
        self._write(volume_id, "")
        try:
            answer = self._call("Mount", {"Name": volume_id, "ID": self._user(volume_id)})
        except Internal:
            self._forget(volume_id)
            raise
        return self._mounted(volume_id, answer)

    def _mounted(self, volume_id: str, answer: Mapping[str, Any]) -> Path:
        where = str(answer.get("Mountpoint") or "")
        if not os.path.isabs(where) or "\0" in where or not os.path.isdir(where):
            raise InvalidArgument(
                f"volume plugin {self._name} mounted {volume_id} at {where[:200]!r}: no directory here"
            )
        self._write(volume_id, where)
        self._paths[volume_id] = Path(where)
        return self._paths[volume_id]

    def unmount(self, volume_id: str, options: Mapping[str, str]) -> None:
        if not self._mark(volume_id).exists():
            return
        try:
            self._call("Unmount", {"Name": volume_id, "ID": self._user(volume_id)})
        except Unavailable:
            raise  # it may still be mounted: the next start asks again
        except (Internal, NotFound):
            self._forget(volume_id)
            raise
        self._forget(volume_id)

    def mounted(self) -> set[str]:
        if not self._marks.is_dir():
            return set()
        return {name for name in os.listdir(self._marks) if not name.startswith(".")}

    def path(self, volume_id: str) -> Path | None:
        return self._paths.get(volume_id)

    def usage(self, volume_id: str, options: Mapping[str, str]) -> int:
        return -1

    def status(self, volume_id: str) -> Mapping[str, Any]:
        found = self._call("Get", {"Name": volume_id}, timeout=_SHORT).get("Volume")
        status = found.get("Status") if isinstance(found, dict) else None
        return status if isinstance(status, dict) else {}

    def ids(self) -> set[str]:
        found = self._call("List", {}, timeout=_SHORT).get("Volumes")
        volumes = found if isinstance(found, list) else []
        return {str(v["Name"]) for v in volumes if isinstance(v, dict) and v.get("Name")}

    def _call(self, method: str, body: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        return self._plugins.call(self._name, f"VolumeDriver.{method}", body, timeout=timeout)

    def _user(self, volume_id: str) -> str:
        """The id that the plugin gets for the user of the mount;
        it is the same after a restart of the daemon."""
        return hashlib.sha256(f"{self._marks} {volume_id}".encode()).hexdigest()

    def _write(self, name: str, text: str) -> None:
        try:
            self._marks.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomic(self._mark(name), text.encode(), durable=False)
        except OSError as e:
            raise Internal(f"cannot note a volume of plugin {self._name}: {e.strerror or e}") from e

    def _forget(self, volume_id: str) -> None:
        self._paths.pop(volume_id, None)
        self._mark(volume_id).unlink(missing_ok=True)

    def _mark(self, name: str) -> Path:
        return paths.below(self._marks, name, what="volume id")
