"""Manifest lists under construction: ``<config>/manifests/<name>.json``, until they are pushed.

A list is ``{"name": …, "manifests": [{"name": …, "descriptor": …}]}``; it becomes an index.
"""

from __future__ import annotations

import os

from wherry.client import jsonwire
from wherry.client.files import read_file, write_all
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class ManifestStore:
    """``directory`` is the client's configuration directory. Names are whole references with a tag."""

    def __init__(self, directory: str) -> None:
        self._directory = f"{directory}/manifests"

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name.replace('/', '_').replace(':', '-')}.json"

    def get(self, name: str) -> list[Object]:
        """:raises NotFound: no such list."""
        try:
            raw = jsonwire.loads(read_file(self._path(name)))
        except FileNotFoundError as e:
            raise NotFound(f"No such manifest: {name}") from e
        except ValueError as e:
            raise InvalidArgument(f"cannot read {self._path(name)}: {e}") from e
        if not isinstance(raw, dict) or raw.get("name") != name or not isinstance(raw.get("manifests"), list):
            raise InvalidArgument(f"cannot read {self._path(name)}: it is not a list of manifests for {name}")
        found: list[Object] = raw["manifests"]
        return found

    def put(self, name: str, members: list[Object]) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        path = self._path(name)
        partial = f"{path}.{os.getpid()}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, jsonwire.dumps({"name": name, "manifests": members}).encode())
        finally:
            os.close(descriptor)
        os.replace(partial, path)

    def remove(self, name: str) -> None:
        """:raises NotFound: no such list."""
        try:
            os.unlink(self._path(name))
        except FileNotFoundError as e:
            raise NotFound(f"No such manifest: {name}") from e


def document(members: list[Object]) -> tuple[str, Object]:
    """The media type and the index that a list becomes: Docker's media type if all its
    members are Docker's."""
    descriptors = [member["descriptor"] for member in members]
    docker = all(one.get("mediaType") == DOCKER_MANIFEST for one in descriptors)
    kind = DOCKER_LIST if docker else INDEX
    return kind, {"schemaVersion": 2, "mediaType": kind, "manifests": descriptors}
