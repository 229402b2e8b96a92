"""What dockerd 20.10 to 29 keeps below its root, as it has written it; nothing is changed or judged here.

containers/<id>/config.v2.json, hostconfig.json      definitions
volumes/metadata.db, volumes/<name>/_data            bucket "volumes": name -> JSON
network/files/local-kv.db                            bucket "libnetwork": docker/network/v1.0/network/<id>/
image/overlay2/…, overlay2/…                         images of the graph driver (``graph``)
containerd/daemon/…                                  images of the containerd store (``containerd``)
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from wherry.errors import Conflict, InvalidArgument
from wherry.migrate.bolt import Bolt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

_NETWORK = b"docker/network/v1.0/network/"
_NETWORKS = "network/files/local-kv.db"
_VOLUMES = "volumes/metadata.db"


class DockerRoot:
    """The root of a dockerd that does not run."""

    def __init__(self, path: str) -> None:
        """:raises InvalidArgument: there is none there. :raises Conflict: its daemon runs."""
        self.path = path
        if not all(os.path.isdir(self.within(name)) for name in ("containers", "volumes", "network")):
            raise InvalidArgument(f"{path} is not the root of a Docker Engine")
        for database in (_NETWORKS, _VOLUMES):
            self._check_free(self.within(database))

    def within(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def _check_free(self, database: str) -> None:
        """dockerd holds its databases locked as long as it runs."""
        try:
            descriptor = os.open(database, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as e:
            raise InvalidArgument(f"cannot read {database}: {e.strerror}") from e
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise Conflict(f"dockerd still runs on {self.path}: stop it first, with its containers") from e
        finally:
            os.close(descriptor)

    def containers(self) -> list[Object]:
        """``{"config": config.v2.json, "host": hostconfig.json}`` of each, the oldest first."""
        found = []
        for name in sorted(os.listdir(self.within("containers"))):
            directory = self.within("containers", name)
            try:
                config = _json(os.path.join(directory, "config.v2.json"))
                host = _json(os.path.join(directory, "hostconfig.json"))
            except FileNotFoundError:
                continue  # one that was being made or removed when the daemon ended
            found.append({"config": config, "host": host})
        return sorted(found, key=lambda each: str(each["config"].get("Created", "")))

    def networks(self) -> list[Object]:
        """Every network as libnetwork stores it."""
        if not os.path.exists(self.within(_NETWORKS)):
            return []
        with Bolt(self.within(_NETWORKS)) as bolt:
            bucket = bolt.root.bucket(b"libnetwork")
            # a value begins with its number among all changes
            found = [
                _document(value[value.find(b"{") :], self.within(_NETWORKS))
                for key, value in bucket or ()
                if key.startswith(_NETWORK) and isinstance(value, bytes) and b"{" in value
            ]
        return sorted(found, key=lambda each: str(each.get("created", "")))

    def volumes(self) -> list[Object]:
        """``{"Name", "Driver", "Labels", "Options", "Data"}``; ``Data`` is the directory with its files, or
        empty for a volume of a plugin."""
        known: dict[str, Object] = {}
        if os.path.exists(self.within(_VOLUMES)):
            with Bolt(self.within(_VOLUMES)) as bolt:
                for key, value in bolt.root.bucket(b"volumes") or ():
                    if isinstance(value, bytes):
                        known[os.fsdecode(key)] = _document(value, self.within(_VOLUMES))
        found = []
        directories = self.within("volumes")
        names = os.listdir(directories) if os.path.isdir(directories) else []
        for name in sorted({*known, *names}):
            data = os.path.join(directories, name, "_data")
            there = os.path.isdir(data)
            if name in known or there:
                about = known.get(name, {})
                driver = about.get("Driver") or "local"
                found.append({**about, "Name": name, "Driver": driver, "Data": data if there else ""})
        return found


def _json(path: str) -> Object:
    return _document(Path(path).read_bytes(), path)


def _document(data: bytes, path: str) -> Object:
    try:
        found = json.loads(data)
    except ValueError as e:
        raise InvalidArgument(f"cannot read {path}: {e}") from e
    if not isinstance(found, dict):
        raise InvalidArgument(f"cannot read {path}: it is no object")
    return found
