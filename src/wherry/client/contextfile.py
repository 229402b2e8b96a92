"""A context in a file, as Docker's client exports it: a tar (or zip) archive of

    meta.json                      the context's description
    tls/<endpoint>/<name>          its certificates and keys

Such a file may be hostile. It is read and checked in memory as a whole, up to :data:`SIZE_MAX`, before
anything is written. Other members than these two, links and duplicates are refused.
"""

from __future__ import annotations

import os

from wherry.client import jsonwire
from wherry.client.contexts import FURTHER, check_meta
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from tarfile import TarInfo
    from typing import IO, Any

    from wherry.client.contexts import Material, Object

    Member = tuple[str, bytes]

SIZE_MAX = 10 << 20
"""The maximum size of an archive, and of its unpacked content."""
MEMBERS_MAX = 100
META = "meta.json"


def export(meta: Object, tls: Material) -> bytes:
    """The tar archive of a context."""
    from io import BytesIO
    from tarfile import DIRTYPE, USTAR_FORMAT, TarFile, TarInfo

    out = BytesIO()
    with TarFile(fileobj=out, mode="w", format=USTAR_FORMAT) as archive:

        def add(name: str, mode: int, content: bytes | None) -> None:
            member = TarInfo(name)
            member.mode = mode
            if content is None:
                member.type = DIRTYPE
            else:
                member.size = len(content)
            archive.addfile(member, BytesIO(content or b""))

        add(META, 0o644, jsonwire.dumps(meta, ascii_only=False).encode())
        add("tls", 0o700, None)
        for endpoint, files in sorted(tls.items()):
            add(f"tls/{endpoint}", 0o700, None)
            for name, content in sorted(files.items()):
                add(f"tls/{endpoint}/{name}", 0o600, content)
    return out.getvalue()


def read(descriptor: int) -> bytes:
    """All of a file or pipe.

    :raises InvalidArgument: it is larger than :data:`SIZE_MAX`.
    """
    data = bytearray()
    while piece := os.read(descriptor, 1 << 20):
        data += piece
        if len(data) > SIZE_MAX:
            raise InvalidArgument("cannot import context: the file is larger than 10 MiB")
    return bytes(data)


def parse(data: bytes) -> tuple[Object, Material]:
    """Read a context's description and TLS files from an archive.

    :raises InvalidArgument: it is not an exported context.
    """
    meta: Any = None
    tls: Material = {}
    size = 0
    for name, content in _zip(data) if data.startswith(b"PK\x03\x04") else _tar(data):
        size += len(content)
        if size > SIZE_MAX:
            raise InvalidArgument("cannot import context: it unpacks to more than 10 MiB")
        parts = name.split("/")
        if parts == [META] and meta is None:
            try:
                meta = jsonwire.loads(content.decode("utf-8", "strict"))
            except ValueError as e:
                raise InvalidArgument(f"invalid context: {META}: {e}") from e
        elif _is_tls(parts) and len(parts) == 3 and parts[2] not in tls.get(parts[1], {}):
            tls.setdefault(parts[1], {})[parts[2]] = content
        else:
            raise _unexpected(name)
    if meta is None:
        raise InvalidArgument("invalid context: no metadata found")
    return check_meta(meta), tls


def _unexpected(name: str) -> InvalidArgument:
    return InvalidArgument(f"{name}: unexpected context file")


def _is_tls(parts: list[str]) -> bool:
    """Whether a path is ``tls`` or lies below it, every part of it a plain name."""
    plain = (0 < len(p) <= 100 and not p.startswith(".") and FURTHER.issuperset(p) for p in parts)
    return parts[0] == "tls" and len(parts) <= 3 and all(plain)


def _is_directory(name: str) -> bool:
    parts = name.rstrip("/").split("/")
    return _is_tls(parts) and len(parts) < 3


def _tar(data: bytes) -> Iterator[Member]:
    from io import BytesIO
    from tarfile import TarError, TarFile

    # Docker's own exports end right after the last file's content.
    whole = data + bytes(-len(data) % 512 + 1024)
    try:
        with TarFile(fileobj=BytesIO(whole), mode="r") as archive:
            for count, member in enumerate(archive):
                if count == MEMBERS_MAX:
                    raise InvalidArgument("cannot import context: too many files")
                if not (member.isdir() and _is_directory(member.name)):
                    if member.offset_data + member.size > len(data):
                        raise InvalidArgument("cannot import context: unexpected EOF")
                    yield member.name, _tar_content(archive, member)
    except (TarError, ValueError, OSError, EOFError, OverflowError, RecursionError) as e:
        raise InvalidArgument(f"cannot import context: neither a tar nor a zip archive: {e}") from e


def _tar_content(archive: Any, member: TarInfo) -> bytes:
    if not member.isreg() or member.issparse():
        raise _unexpected(member.name)
    return _bounded(member.name, archive.extractfile(member), member.size)


def _bounded(name: str, file: IO[bytes], size: int) -> bytes:
    if size > SIZE_MAX:
        raise InvalidArgument(f"cannot import context: {name} is larger than 10 MiB")
    content = file.read(SIZE_MAX + 1)
    if len(content) != size:
        raise InvalidArgument(f"cannot import context: {name} is not as long as the archive says")
    return content


def _zip(data: bytes) -> Iterator[Member]:
    import stat
    from io import BytesIO
    from zipfile import BadZipFile, ZipFile
    from zlib import error as ZlibError

    try:
        with ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MEMBERS_MAX:
                raise InvalidArgument("cannot import context: too many files")
            for member in members:
                name, mode = member.filename, member.external_attr >> 16
                if member.is_dir() and _is_directory(name):
                    continue
                if member.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                    raise _unexpected(name)
                with archive.open(member) as file:
                    yield name, _bounded(name, file, member.file_size)
    except (BadZipFile, ZlibError, ValueError, OSError, EOFError, RuntimeError) as e:
        raise InvalidArgument(f"cannot import context: not a zip archive that can be read: {e}") from e
