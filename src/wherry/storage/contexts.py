"""Build contexts: the files a client sent, with the digest of each, so that no file is read twice.

    <root>/build/contexts/<id>/files/    the tree, owned by root, written by confined children only
    <root>/build/contexts/<id>/index     its content (msgpack); a tree without it is void

A context that was sent as a whole archive is removed when its build ends. A synced context stays: the client
sends a list of its files (a manifest), is told which are missing or changed, and sends only those.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from wherry.errors import InvalidArgument
from wherry.linux import files, trees
from wherry.model import tarformat as tf
from wherry.model.ignore import Patterns
from wherry.model.mount import Mount
from wherry.model.tarformat import clean
from wherry.model.typed import from_msgpack
from wherry.storage.confined import build_files
from wherry.storage.confined.children import Ending
from wherry.storage.selection import DIRECTORY, FILE, LINK, OTHER, Node

_LINKS_MAX = 255
_FIELDS = 7
_LINKED = "h"
_KINDS = {tf.FILE: FILE, tf.DIRECTORY: DIRECTORY, tf.SYMLINK: LINK}
ENTRIES_MAX = 1_000_000


class ContextEntry(msgspec.Struct, array_like=True, frozen=True):
    """One file of a context; ``stamp``: the client's sign for "unchanged since". The kind ``h`` is a hard
    link to the file ``target``."""

    path: bytes
    kind: str
    mode: int
    size: int
    mtime: int
    target: bytes
    digest: bytes = b""
    stamp: bytes = b""

    def same_as(self, other: ContextEntry) -> bool:
        return (self.kind, self.mode, self.size, self.mtime, self.target, self.stamp) == (
            *(other.kind, other.mode, other.size, other.mtime, other.target, other.stamp),
        )


class IndexTree:
    """A context in memory; see :class:`wherry.storage.selection.Tree`."""

    def __init__(self, entries: Iterable[ContextEntry]) -> None:
        self._nodes: dict[bytes, Node] = {b"": Node(DIRECTORY, 0o755)}
        self._digests: dict[bytes, bytes] = {}
        self._names: dict[bytes, list[bytes]] | None = None
        for entry in entries:
            linked = entry.kind == _LINKED
            kind, target = (FILE, b"") if linked else (entry.kind, entry.target)
            self._nodes[entry.path] = Node(kind, entry.mode, 0, 0, entry.size, entry.mtime, target)
            if entry.digest:
                self._digests[entry.path] = entry.digest
        for path in list(self._nodes):
            head = path.rpartition(b"/")[0]
            while head not in self._nodes:
                self._nodes[head] = Node(DIRECTORY, 0o755)
                head = head.rpartition(b"/")[0]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(node.size for node in self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes) - 1

    def find(self, path: bytes) -> bytes | None:
        pending = path.split(b"/")[::-1]
        here: list[bytes] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del here[-1:]
                continue
            at = b"/".join((*here, part))
            node = self._nodes.get(at)
            if node is None:
                return None
            if node.kind != LINK:
                here.append(part)
                continue
            links += 1
            if links > _LINKS_MAX:
                return None
            if node.target.startswith(b"/"):
                here = []
            pending += node.target.split(b"/")[::-1]
        return b"/".join(here)

    def node(self, path: bytes) -> Node | None:
        return self._nodes.get(path)

    def names(self, path: bytes) -> list[bytes]:
        if self._names is None:
            found: dict[bytes, list[bytes]] = {}
            for one in self._nodes:
                if one:
                    head, _, name = one.rpartition(b"/")
                    found.setdefault(head, []).append(name)
            for names in found.values():
                names.sort()
            self._names = found
        return self._names.get(path, [])

    def digest(self, path: bytes) -> bytes:
        return self._digests.get(path, b"")


class BuildContext:
    """One context, used for the time of a build. :meth:`release` gives it back."""

    def __init__(self, store: ContextStore, identifier: str, directory: Path, *, keep: bool) -> None:
        self._store, self._keep = store, keep
        self.id, self.directory = identifier, directory
        self.tree = IndexTree(())

    def with_ignored_parents(self, paths: Iterable[str], ignored: Patterns) -> tuple[str, ...]:
        """These paths, and the ignored directories that contain nothing else."""
        hidden = dict.fromkeys(paths)
        for path in list(hidden):
            while (path := path.rpartition("/")[0]) and ignored.excluded(path):
                inside = (f"{path}/{os.fsdecode(name)}" for name in self.tree.names(os.fsencode(path)))
                if not all(one in hidden for one in inside):
                    break
                hidden[path] = None
        return tuple(hidden)

    @property
    def mount(self) -> Mount:
        """The mount through which a child reads it."""
        return Mount("bind", str(self.directory / "files"), ("rbind",))

    def read(self, path: str) -> bytes | None:
        """Read a small file; ``None`` if it does not exist. Links are followed within the context."""
        encoded = os.fsencode(path.strip("/"))
        if self.tree.find(encoded) is None:
            return None
        return build_files.read(self.directory / "files", path.strip("/"), what=f"cannot read {path}")

    def receive(self, stream: int, ending: Ending) -> None:
        """Fill it from an archive. :raises InvalidArgument: broken or hostile."""
        found: dict[bytes, ContextEntry] = {}
        self._take(stream, (), found, ending)
        self._index(found.values())

    def _take(
        self,
        stream: int,
        gone: Sequence[str],
        found: dict[bytes, ContextEntry],
        ending: Ending,
        kept: Mapping[bytes, ContextEntry] = MappingProxyType({}),
    ) -> None:
        """:param kept: the files that exist already; links may refer to them."""

        def entries(fields: Sequence[bytes]) -> None:
            for at in range(0, len(fields), _FIELDS):
                entry = _entry(fields[at : at + _FIELDS], found, kept)
                if entry is not None:
                    _put(found, entry)
            if len(found) > ENTRIES_MAX:
                raise InvalidArgument(f"cannot read the build context: it has more than {ENTRIES_MAX} files")

        build_files.receive(
            self.mount, gone, stream, entries, what="cannot read the build context", ending=ending
        )

    def _index(self, entries: Iterable[ContextEntry]) -> None:
        self.tree = IndexTree(entries)

    def release(self) -> None:
        """Call this when it is not used any more. Blocks."""
        self._store.release(self.id)
        if not self._keep:
            trees.remove(self.directory)


class SyncedContext(BuildContext):
    """A context that is kept between builds: only changed files are sent."""

    def begin(self, manifest: bytes) -> list[int]:
        """Compare with the client's files; returns the positions of the entries that the client must send.

        :raises InvalidArgument: not a valid manifest.
        """
        self._wanted = parse_manifest(manifest)
        before = self._load()
        need: list[int] = []
        kept: dict[bytes, ContextEntry] = {}
        for position, entry in enumerate(self._wanted):
            old = before.pop(entry.path, None)
            # If its file is sent again, a hard link would still be a link to the old file.
            alone = entry.kind != _LINKED or entry.target in kept
            if old is not None and old.same_as(entry) and alone:
                kept[entry.path] = old
            else:
                need.append(position)
                if old is not None and (old.kind == DIRECTORY) != (entry.kind == DIRECTORY):
                    before[entry.path] = old
        self._kept = kept
        self._gone = [os.fsdecode(path) for path in before]
        return need

    @property
    def is_current(self) -> bool:
        """After :meth:`begin`: whether nothing must be sent or removed."""
        return not self._gone and len(self._kept) == len(self._wanted)

    def settle(self) -> None:
        """Use it as it is, after a manifest without differences."""
        self._index(self._kept.values())

    def receive(self, stream: int, ending: Ending) -> None:
        index = self.directory / "index"
        index.unlink(missing_ok=True)
        came: dict[bytes, ContextEntry] = {}
        self._take(stream, self._gone, came, ending, self._kept)
        entries = []
        for wanted in self._wanted:
            entry = self._kept.get(wanted.path) or came.get(wanted.path)
            if entry is None:
                raise InvalidArgument(
                    f"cannot read the build context: {os.fsdecode(wanted.path)!r} did not come"
                )
            said = {"stamp": wanted.stamp, "mtime": wanted.mtime}
            if wanted.kind == _LINKED:
                said |= {"kind": _LINKED, "target": wanted.target, "size": wanted.size}
            entries.append(msgspec.structs.replace(entry, **said))
        files.write_atomic(index, msgspec.msgpack.encode(entries), durable=False)
        self._index(entries)

    def _load(self) -> dict[bytes, ContextEntry]:
        """Load the state that the last build left; a tree without an index is emptied."""
        try:
            data = (self.directory / "index").read_bytes()
            return {entry.path: entry for entry in from_msgpack(data, list[ContextEntry])}
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            trees.remove(self.directory / "files")
            (self.directory / "files").mkdir(mode=0o755)
            return {}


def release_all(contexts: Iterable[BuildContext]) -> None:
    """Blocks."""
    for context in contexts:
        context.release()


class ContextStore:
    """Safe to use from any thread."""

    def __init__(self, root: Path) -> None:
        """:param root: ``<root>/build``; contexts of a killed daemon's builds are removed."""
        self.root = root / "contexts"
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        for entry in self.root.iterdir():
            if entry.name.startswith("once-"):
                trees.remove(entry)

    def once(self) -> BuildContext:
        """An empty context that is removed with its build."""
        identifier = f"once-{secrets.token_hex(8)}"
        directory = self._make(identifier)
        return BuildContext(self, identifier, directory, keep=False)

    def synced(self, name: str) -> SyncedContext:
        """The context that a client keeps under ``name`` (hex digits); if it is in use, another one."""
        if not (name.isalnum() and name.isascii() and len(name) <= 64):
            raise InvalidArgument(f"invalid context name: {name[:80]!r}")
        with self._lock:
            number = 0
            while (identifier := f"{name}-{number}") in self._busy:
                number += 1
            self._busy.add(identifier)
        return SyncedContext(self, identifier, self._make(identifier), keep=True)

    def _make(self, identifier: str) -> Path:
        directory = self.root / identifier
        (directory / "files").mkdir(parents=True, exist_ok=True, mode=0o755)
        directory.chmod(0o700)
        return directory

    def release(self, identifier: str) -> None:
        with self._lock:
            self._busy.discard(identifier)

    def remove(self, identifier: str) -> bool:
        """Remove a synced context; ``False`` if it is in use."""
        with self._lock:
            if identifier in self._busy:
                return False
            self._busy.add(identifier)
        try:
            trees.remove(self.root / identifier)
        finally:
            self.release(identifier)
        return True


def parse_manifest(data: bytes) -> list[ContextEntry]:
    """Six fields per entry, each ended by NUL: path, kind, mode (octal), size, mtime (ns), link target; then
    a seventh, the stamp. A directory comes before its entries, a file before its hard links. The list is
    complete, so that a copy's key and the copy itself are computed from the same files.

    :raises InvalidArgument: anything else.
    """
    fields = data.split(b"\0")
    if fields.pop() or len(fields) % _FIELDS:
        raise InvalidArgument("invalid context manifest")
    found = []
    directories: set[bytes] = set()
    files_: set[bytes] = set()
    try:
        for at in range(0, len(fields), _FIELDS):
            path, kind, mode, size, mtime, target, stamp = fields[at : at + _FIELDS]
            if clean(path) != path or not path or kind not in (b"f", b"d", b"l", b"o", b"h"):
                raise InvalidArgument(f"invalid context manifest: {path[:80]!r}")
            if (above := path.rpartition(b"/")[0]) and above not in directories:
                raise InvalidArgument(f"invalid context manifest: {path[:80]!r} is in no directory")
            if kind == b"h" and target not in files_:
                raise InvalidArgument(f"invalid context manifest: {path[:80]!r} is a link to nothing")
            if kind == b"d":
                directories.add(path)
            elif kind == b"f":
                files_.add(path)
            found.append(
                ContextEntry(path, kind.decode(), int(mode, 8), int(size), int(mtime), target, b"", stamp)
            )
    except (ValueError, tf.BadTar) as e:
        raise InvalidArgument("invalid context manifest") from e
    if len(found) > ENTRIES_MAX:
        raise InvalidArgument(f"cannot read the build context: it has more than {ENTRIES_MAX} files")
    return found


def _entry(
    fields: Sequence[bytes], found: Mapping[bytes, ContextEntry], kept: Mapping[bytes, ContextEntry]
) -> ContextEntry | None:
    """An entry from a child's report about one member."""
    name, kind, mode, size, mtime, target, digest = fields
    path = _real(clean(name), found)
    if not path:
        return None
    if kind == tf.LINK:
        at = _real(clean(target), found)
        first = found.get(at) or kept.get(at)
        return None if first is None else msgspec.structs.replace(first, path=path)
    return ContextEntry(
        path,
        _KINDS.get(kind, OTHER),
        int(mode, 8),
        int(size) if kind == tf.FILE else 0,
        int(mtime),
        target if kind == tf.SYMLINK else b"",
        bytes.fromhex(digest.decode()),
    )


def _put(found: dict[bytes, ContextEntry], entry: ContextEntry) -> None:
    """Add an entry as extracting would:
    anything except a directory replaces a directory with all its content."""
    old = found.get(entry.path)
    if old is not None and old.kind == DIRECTORY and entry.kind != DIRECTORY:
        for path in [path for path in found if path.startswith(entry.path + b"/")]:
            del found[path]
    found[entry.path] = entry


def _real(path: bytes, found: Mapping[bytes, ContextEntry]) -> bytes:
    """Where an archive's member is put: links above it from earlier members are followed within the root."""
    head, _, name = path.rpartition(b"/")
    above = found.get(head)
    if not head or (above is not None and above.kind == DIRECTORY):
        return path
    here: list[bytes] = []
    pending = head.split(b"/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            del here[-1:]
            continue
        entry = found.get(b"/".join((*here, part)))
        if entry is None or entry.kind != LINK:
            here.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            return path
        if entry.target.startswith(b"/"):
            here = []
        pending += entry.target.split(b"/")[::-1]
    return b"/".join((*here, name))
