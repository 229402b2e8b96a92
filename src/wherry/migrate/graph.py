"""Images of dockerd's own store (driver overlay2), as an archive that ``docker load`` takes.

    image/overlay2/repositories.json                             names -> ids
    image/overlay2/imagedb/content/sha256/<id>                   the image's configuration
    image/overlay2/layerdb/sha256/<chain id>/cache-id            the layer's directory below overlay2/
    image/overlay2/layerdb/sha256/<chain id>/tar-split.json.gz   all of its archive but the content of files

A layer is put together again byte for byte from the last two, and its digest is compared with the one that
the image has (tar-split: github.com/vbatts/tar-split).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import stat
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.migrate.images import StoredImage
from wherry.model import tarwriter
from wherry.model.tarwriter import TarMember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from wherry.migrate.dockerroot import DockerRoot

_PIECE = 1 << 20
_FILE, _SEGMENT = 1, 2
DRIVER = "overlay2"


class GraphImage(StoredImage):
    """One image, with its configuration. ``names`` have their tags."""

    def __init__(self, identifier: str, config: bytes, names: list[str]) -> None:
        super().__init__(identifier, names)
        self.config = config
        rootfs = json.loads(config).get("rootfs") or {}
        self.diff_ids: list[str] = list(rootfs.get("diff_ids") or ())


class GraphStore:
    """The images below a root."""

    def __init__(self, root: DockerRoot) -> None:
        self._root = root

    def _within(self, *names: str) -> str:
        return self._root.within("image", DRIVER, *names)

    @property
    def present(self) -> bool:
        return os.path.isdir(self._within("imagedb", "content", "sha256"))

    def images(self, wanted: Iterable[str]) -> list[GraphImage]:
        """Those that have a name, and those among ``wanted`` (ids) that have none.

        :raises InvalidArgument: the store cannot be read."""
        names: dict[str, list[str]] = {}
        try:
            with Path(self._within("repositories.json")).open("rb") as file:
                repositories = json.loads(file.read()).get("Repositories") or {}
        except FileNotFoundError:
            repositories = {}
        for tags in repositories.values():
            for name, identifier in tags.items():
                if "@" not in name:  # a digest of a manifest that this store does not have
                    names.setdefault(identifier, []).append(name)
        found = []
        for identifier in sorted({*names, *wanted}):
            try:
                with Path(self._within("imagedb", "content", *identifier.split(":"))).open("rb") as file:
                    found.append(GraphImage(identifier, file.read(), sorted(names.get(identifier, []))))
            except FileNotFoundError:
                continue  # removed by force while a container still used it
            except (OSError, ValueError) as e:
                raise InvalidArgument(f"cannot read image {identifier}: {e}") from e
        return found

    def size(self, images: Iterable[GraphImage]) -> int:
        """Bytes of all their layers, each counted once."""
        return sum(self._layer_size(chain) for chain in _chains(images))

    def _layer_size(self, chain: str) -> int:
        """Bytes of a layer's archive."""
        total = 0
        for entry in self._entries(chain):
            if entry["type"] == _SEGMENT:
                total += len(base64.b64decode(entry["payload"]))
            elif entry["type"] == _FILE:
                total += entry.get("size") or 0
        return total

    def archive(self, images: list[GraphImage]) -> Iterator[bytes]:
        """All of them in one archive; a layer that several have is in it once.

        :raises InvalidArgument: a layer is not what its image says; the archive is then incomplete."""
        manifest = []
        for image in images:
            layers = [f"{_digits(diff)}/layer.tar" for diff in image.diff_ids]
            config = f"{_digits(image.id)}.json"
            manifest.append(
                {"Config": config, "RepoTags": image.names or [image.extra_name], "Layers": layers}
            )
            yield tarwriter.document(config, image.config)
        for chain, diff in _chains(images).items():
            size = self._layer_size(chain)
            member = TarMember(f"{_digits(diff)}/layer.tar".encode(), size=size)
            yield tarwriter.header(member)
            yield from self._layer(chain, diff)
            yield tarwriter.padding(size)
        yield tarwriter.document("manifest.json", json.dumps(manifest).encode()) + tarwriter.END

    def _layer(self, chain: str, diff: str) -> Iterator[bytes]:
        with Path(self._within("layerdb", *chain.split(":"), "cache-id")).open() as file:
            directory = self._root.within(DRIVER, file.read().strip(), "diff")
        found = hashlib.sha256()
        for piece in self._pieces(chain, directory):
            found.update(piece)
            yield piece
        if found.hexdigest() != _digits(diff):
            raise InvalidArgument(
                f"layer {diff} has changed on the disk: its files give sha256:{found.hexdigest()}"
            )

    def _pieces(self, chain: str, directory: str) -> Iterator[bytes]:
        """A layer's archive."""
        for entry in self._entries(chain):
            if entry["type"] == _SEGMENT:
                yield base64.b64decode(entry["payload"])
            elif entry["type"] == _FILE and (size := entry.get("size") or 0):
                name = (
                    base64.b64decode(entry["name_raw"])
                    if entry.get("name_raw")
                    else os.fsencode(entry["name"])
                )
                yield from _content(directory, name, size)

    def _entries(self, chain: str) -> Iterator[dict[str, Any]]:
        path = self._within("layerdb", *chain.split(":"), "tar-split.json.gz")
        try:
            with gzip.open(path, "rb") as file:
                for line in file:
                    yield json.loads(line)
        except (OSError, EOFError, ValueError) as e:
            raise InvalidArgument(f"cannot read {path}: {e}") from e


def _content(directory: str, name: bytes, size: int) -> Iterator[bytes]:
    """A file of a layer. No link is followed: what is behind one is not the layer's."""
    *above, last = [part for part in name.split(b"/") if part not in (b"", b".")]
    shown = os.fsdecode(name)
    held = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for part in above:
            if part == b"..":
                raise InvalidArgument(f"a layer has a file with the name {shown}")
            held.append(
                os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
            )
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        held.append(os.open(last, flags, dir_fd=held[-1]))
        if not stat.S_ISREG(os.fstat(held[-1]).st_mode):
            raise InvalidArgument(f"file {shown} of a layer is no file any more")
        left = size
        while left and (piece := os.read(held[-1], min(_PIECE, left))):
            left -= len(piece)
            yield piece
        if left:
            raise InvalidArgument(f"file {shown} of a layer has become shorter")
    except OSError as e:
        raise InvalidArgument(f"cannot read file {shown} of a layer: {e.strerror}") from e
    finally:
        for descriptor in held:
            os.close(descriptor)


def _chains(images: Iterable[GraphImage]) -> dict[str, str]:
    """Chain ids of all layers, those below first, with their diff ids (OCI image-spec, "Layer ChainID")."""
    found: dict[str, str] = {}
    for image in images:
        chain = ""
        for diff in image.diff_ids:
            chain = diff if not chain else f"sha256:{hashlib.sha256(f'{chain} {diff}'.encode()).hexdigest()}"
            found[chain] = diff
    # one archive needs a layer once, even where it stands on several others
    once: dict[str, str] = {}
    for chain, diff in found.items():
        if diff not in once.values():
            once[chain] = diff
    return once


def _digits(digest: str) -> str:
    return digest.partition(":")[2]
