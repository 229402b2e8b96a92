"""Images of the containerd store, as an OCI archive: what was pulled stays what it was, byte for byte.

io.containerd.metadata.v1.bolt/meta.db        v1 / <namespace> / images / <name> / target
io.containerd.content.v1.content/blobs/sha256/<digest>
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.migrate.bolt import Bolt
from wherry.migrate.images import StoredImage
from wherry.model import tarwriter
from wherry.model.tarwriter import TarMember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

NAMESPACE = b"moby"
_DANGLING = "moby-dangling@"
_META = "io.containerd.metadata.v1.bolt/meta.db"
_BLOBS = "io.containerd.content.v1.content/blobs"
_PIECE = 1 << 20
_DOCUMENT = 8 << 20
"""The most bytes of an index or manifest."""


class ContainerdImage(StoredImage):
    """One image: the descriptor of its target, and its full names."""

    def __init__(self, target: dict[str, Any], names: list[str]) -> None:
        super().__init__(str(target["digest"]), names)
        self.target = target


class ContainerdStore:
    """The images of dockerd below a root of containerd."""

    def __init__(self, root: str) -> None:
        self._root = root

    @property
    def present(self) -> bool:
        return os.path.exists(os.path.join(self._root, _META)) and bool(self.images(()))

    def images(self, wanted: Iterable[str]) -> list[ContainerdImage]:
        """Those that have a name, and those among ``wanted`` (ids) that have none.

        :raises InvalidArgument: the store cannot be read."""
        wanted = set(wanted)
        found: dict[str, ContainerdImage] = {}
        with Bolt(os.path.join(self._root, _META)) as bolt:
            for key, value in bolt.root.bucket(b"v1", NAMESPACE, b"images") or ():
                target = None if isinstance(value, bytes) else value.bucket(b"target")
                if target is None:
                    continue
                facts = {name.decode(): data for name, data in target if isinstance(data, bytes)}
                name, digest = key.decode(), facts["digest"].decode()
                descriptor = {
                    "mediaType": facts["mediatype"].decode(),
                    "digest": digest,
                    "size": _varint(facts["size"]),
                }
                if name.startswith(_DANGLING):
                    if digest in wanted:
                        found.setdefault(digest, ContainerdImage(descriptor, []))
                else:
                    found.setdefault(digest, ContainerdImage(descriptor, [])).names.append(name)
        return list(found.values())

    def size(self, images: Iterable[ContainerdImage]) -> int:
        """Bytes of all blobs that are there, each counted once."""
        return sum(os.stat(self._blob(digest)).st_size for digest in self._reachable(images))

    def archive(self, images: list[ContainerdImage]) -> Iterator[bytes]:
        """All of them as an OCI image layout in one archive (image-spec, "image-layout")."""
        yield tarwriter.document("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for digest in self._reachable(images):
            size = os.stat(self._blob(digest)).st_size
            yield tarwriter.header(TarMember(f"blobs/{digest.replace(':', '/')}".encode(), size=size))
            yield from self._read(digest)
            yield tarwriter.padding(size)
        manifests = [
            {**image.target, "annotations": {"io.containerd.image.name": name}}
            for image in images
            for name in image.names or [f"docker.io/library/{image.extra_name}"]
        ]
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }
        yield tarwriter.document("index.json", json.dumps(index).encode()) + tarwriter.END

    def _reachable(self, images: Iterable[ContainerdImage]) -> list[str]:
        """Digests of all that belongs to them and is there; of platforms that were not pulled, nothing is."""
        found: dict[str, None] = {}
        pending = [(image.id, str(image.target["mediaType"])) for image in images]
        while pending:
            digest, kind = pending.pop()
            if digest in found or not os.path.exists(self._blob(digest)):
                continue
            found[digest] = None
            if "manifest" in kind or "index" in kind:
                document = self._document(digest)
                children = (
                    document.get("config"),
                    *document.get("layers", ()),
                    *document.get("manifests", ()),
                )
                pending += [(str(c["digest"]), str(c.get("mediaType", ""))) for c in children if c]
        return list(found)

    def _document(self, digest: str) -> dict[str, Any]:
        try:
            with Path(self._blob(digest)).open("rb") as file:
                found = json.loads(file.read(_DOCUMENT))
        except (OSError, ValueError) as e:
            raise InvalidArgument(f"cannot read {digest}: {e}") from e
        return found if isinstance(found, dict) else {}

    def _blob(self, digest: str) -> str:
        algorithm, _, digits = digest.partition(":")
        if not algorithm.isalnum() or not digits.isalnum():
            raise InvalidArgument(f"{digest!r} is no digest")
        return os.path.join(self._root, _BLOBS, algorithm, digits)

    def _read(self, digest: str) -> Iterator[bytes]:
        with Path(self._blob(digest)).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def _varint(data: bytes) -> int:
    """A signed number as Go's ``binary.PutVarint`` writes it."""
    value = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data))
    return (value >> 1) ^ -(value & 1)
