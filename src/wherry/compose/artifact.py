"""A project in a registry: an OCI artifact, as Docker's plugin makes and reads it.

    artifactType   application/vnd.docker.compose.project
    config         application/vnd.oci.empty.v1+json
    layers         application/vnd.docker.compose.file+yaml, in the order in which they are merged;
                   application/vnd.docker.compose.envfile

A layer's annotation ``com.docker.compose.file`` (or ``.envfile``) is its file name. A file that services
extend has ``com.docker.compose.extends`` as well, and is not merged.
"""

from __future__ import annotations

import os
import re

from wherry.client import credentials, jsonwire, registries
from wherry.client.files import write_file
from wherry.compose import labels
from wherry.compose.places import ComposeError
from wherry.errors import InvalidArgument
from wherry.model import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]

PROJECT = "application/vnd.docker.compose.project"
FILE = "application/vnd.docker.compose.file+yaml"
ENV_FILE = "application/vnd.docker.compose.envfile"
_EMPTY = "application/vnd.oci.empty.v1+json"
_EMPTY_OLD = "application/vnd.docker.compose.config.empty.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_NAMED = {FILE: labels.PREFIX + "file", ENV_FILE: labels.PREFIX + "envfile"}
_EXTENDED = labels.PREFIX + "extends"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_FILES_MAX = 200
_SIZE_MAX = 16 << 20


class ProjectFile:
    """A file of the artifact; ``kind`` is its media type."""

    def __init__(self, kind: str, name: str, data: bytes) -> None:
        self.kind, self.name, self.data = kind, name, data


def name_of(text: str) -> str:
    """The name with its registry. :raises ComposeError: it is malformed."""
    try:
        return reference.parse(text).with_default_tag().familiar()
    except InvalidArgument as e:
        raise ComposeError(f"{text}: {e.message}") from e


def publish(api: Api, target: str, files: Sequence[ProjectFile], config_dir: str, *, old: bool) -> str:
    """Send the files under a tag. :returns: the digest.

    :param old: as OCI 1.0, which has no ``artifactType``.
    """
    from datetime import UTC, datetime

    headers = credentials.header_for(config_dir, target)
    kind = _EMPTY_OLD if old else _EMPTY
    config = registries.put_blob(api, target, kind, b"{}", headers=headers)
    layers = []
    for one in files:
        layer = registries.put_blob(api, target, one.kind, one.data, headers=headers)
        layer["annotations"] = {_NAMED[one.kind]: one.name, labels.VERSION: labels.SPOKEN}
        layers.append(layer)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        **({} if old else {"artifactType": PROJECT}),
        "config": config,
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": now},
    }
    data = jsonwire.dumps(manifest).encode()
    answer = registries.put_manifest(api, target, _MANIFEST, data, headers=headers)
    return str(answer["Descriptor"]["digest"])


def fetch(api: Api, source: str, cache: str, config_dir: str) -> str:
    """The path of the project's Compose file below ``cache``.

    :raises ComposeError: it is no Compose project. :raises WherryError: the registry does not have it.
    """
    from binascii import a2b_base64

    name = name_of(source)
    headers = credentials.header_for(config_dir, name)
    found = registries.inspect(api, name, raw=True, headers=headers)
    digest = str(found["Descriptor"]["digest"])
    directory = os.path.join(cache, digest.partition(":")[2])
    path = os.path.join(directory, "compose.yaml")
    if os.path.isfile(path):
        return path
    layers = _layers(source, jsonwire.loads(a2b_base64(found["Document"])))
    merged: list[bytes] = []
    rest: list[ProjectFile] = []
    for layer, kind, file in layers:
        data = registries.blob(api, name, layer["digest"], layer["size"], headers=headers)
        if kind == FILE and _EXTENDED not in layer["annotations"]:
            merged.append(data if data.endswith(b"\n") else data + b"\n")
        else:
            rest.append(ProjectFile(kind, file, data))
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for one in rest:
        write_file(os.path.join(directory, one.name), [one.data])
    write_file(path, [b"---\n".join(merged)])  # last: it says that all is there
    return path


def _layers(source: str, manifest: Any) -> list[tuple[Object, str, str]]:
    """Each layer with its kind and its file name. :raises ComposeError: this is something else."""
    config = manifest.get("config") if isinstance(manifest, dict) else None
    kind = (config or {}).get("mediaType")
    if not config or (manifest.get("artifactType") != PROJECT and kind != _EMPTY_OLD):
        shown = manifest.get("artifactType") or kind if isinstance(manifest, dict) else "no manifest"
        raise ComposeError(f"oci://{source} is not a Compose project, but {shown or 'an index'}")
    layers = manifest.get("layers") or []
    known = [one for one in layers if one.get("mediaType") in _NAMED]
    if len(known) > _FILES_MAX or sum(int(one.get("size") or 0) for one in known) > _SIZE_MAX:
        raise ComposeError(f"oci://{source}: more than {_FILES_MAX} files or {_SIZE_MAX >> 20} MiB")
    found = []
    for one in known:
        one.setdefault("annotations", {})
        name = str(one["annotations"].get(_NAMED[one["mediaType"]]) or "compose.yaml")
        if not _NAME.fullmatch(name):
            raise ComposeError(f"oci://{source} has a file with the invalid name {name[:80]!r}")
        found.append((one, one["mediaType"], name))
    if not any(kind == FILE for _, kind, _ in found):
        raise ComposeError(f"oci://{source} has no Compose file")
    return found
