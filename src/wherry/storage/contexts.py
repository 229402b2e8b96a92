"""Build contexts: the files a client sent, with the digest of each, so that nobody reads a file twice.

    <root>/build/contexts/<id>/files/    the tree, owned by root, filled by confined children only
    <root>/build/contexts/<id>/index     what is in it (msgpack), written when it is whole; else it is void

A context that came as a whole archive goes when its build ends. One that a client keeps up to date stays: the
client sends what is there (a manifest), is told which files are missing or changed, and sends those.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from wherry.errors import InvalidArgument
from wherry.linux import files, trees
from wherry.model import tarformat as tf
from wherry.model.mount import Mount
from wherry.storage import build_files
from wherry.storage.apply import clean
from wherry.storage.children import Ending
from wherry.storage.selection import DIRECTORY, FILE, LINK, OTHER, Node

_LINKS_MAX = 255
_FIELDS = 7
_KINDS = {tf.FILE: FILE, tf.DIRECTORY: DIRECTORY, tf.SYMLINK: LINK}
ENTRIES_MAX = 1_000_000


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One file of a context; ``stamp`` is the client's word for "unchanged since"."""

    path: bytes
    kind: str
    mode: int
    size: int
    mtime: int
    target: bytes
    digest: bytes = b""
    stamp: bytes = b""

    def same_as(self, other: Entry) -> bool:
        return (self.kind, self.mode, self.size, self.mtime, self.target, self.stamp) == (
            *(other.kind, other.mode, other.size, other.mtime, other.target, other.stamp),
        )


class IndexTree:
    """A context in memory; see :class:`wherry.storage.selection.Tree`."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._nodes: dict[bytes, Node] = {b"": Node(DIRECTORY, 0o755)}
        self._digests: dict[bytes, bytes] = {}
        self._names: dict[bytes, list[bytes]] | None = None
        for entry in entries:
            self._nodes[entry.path] = Node(
                entry.kind, entry.mode, 0, 0, entry.size, entry.mtime, entry.target
            )
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


class Context:
    """One context for the length of a build. :meth:`release` gives it back."""

    def __init__(self, store: ContextStore, identifier: str, directory: Path, *, keep: bool) -> None:
        self._store, self._keep = store, keep
        self.id, self.directory = identifier, directory
        self.tree = IndexTree(())
        self.hidden: tuple[str, ...] = ()
        """Files that COPY does not see, though they were sent."""

    @property
    def mount(self) -> Mount:
        """For reading it in a child."""
        return Mount("bind", str(self.directory / "files"), ("rbind",))

    def read(self, path: str) -> bytes | None:
        """A small file, or ``None``; links are followed within the context."""
        encoded = os.fsencode(path.strip("/"))
        if self.tree.find(encoded) is None:
            return None
        return build_files.read(self.directory / "files", path.strip("/"), what=f"cannot read {path}")

    def receive(self, stream: int, ending: Ending) -> None:
        """Fill it from an archive. :raises InvalidArgument: broken or hostile."""
        found: dict[bytes, Entry] = {}
        self._take(stream, (), found, ending)
        self._index(found.values())

    def _take(self, stream: int, gone: Sequence[str], found: dict[bytes, Entry], ending: Ending) -> None:
        def entries(fields: Sequence[bytes]) -> None:
            for at in range(0, len(fields), _FIELDS):
                entry = _entry(fields[at : at + _FIELDS], found)
                if entry is not None:
                    found[entry.path] = entry
            if len(found) > ENTRIES_MAX:
                raise InvalidArgument(f"cannot read the build context: it has more than {ENTRIES_MAX} files")

        build_files.receive(
            self.mount, gone, stream, entries, what="cannot read the build context", ending=ending
        )

    def _index(self, entries: Iterable[Entry]) -> None:
        self.tree = IndexTree(entries)

    def release(self) -> None:
        """Nobody reads it any more. Blocks."""
        self._store.release(self.id)
        if not self._keep:
            trees.remove(self.directory)


class SyncedContext(Context):
    """A context that stays: only what changed is sent."""

    def begin(self, manifest: bytes) -> list[int]:
        """Compare with what the client has; which of its entries it must send, by position.

        :raises InvalidArgument: no manifest.
        """
        self._wanted = parse_manifest(manifest)
        before = self._load()
        need: list[int] = []
        kept: dict[bytes, Entry] = {}
        for position, entry in enumerate(self._wanted):
            old = before.pop(entry.path, None)
            if old is not None and old.same_as(entry):
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
        """After :meth:`begin`: whether there is nothing to send or to remove."""
        return not self._gone and len(self._kept) == len(self._wanted)

    def settle(self) -> None:
        """Take it as it is, after a manifest that differs in nothing."""
        self._index(self._kept.values())

    def receive(self, stream: int, ending: Ending) -> None:
        index = self.directory / "index"
        index.unlink(missing_ok=True)
        came: dict[bytes, Entry] = {}
        self._take(stream, self._gone, came, ending)
        entries = []
        for wanted in self._wanted:
            entry = self._kept.get(wanted.path) or came.get(wanted.path)
            if entry is None:
                raise InvalidArgument(
                    f"cannot read the build context: {os.fsdecode(wanted.path)!r} did not come"
                )
            entries.append(msgspec.structs.replace(entry, stamp=wanted.stamp, mtime=wanted.mtime))
        files.write_atomic(index, msgspec.msgpack.encode(entries), durable=False)
        self._index(entries)

    def _load(self) -> dict[bytes, Entry]:
        """What the last build left; a tree without an index is emptied."""
        try:
            data = (self.directory / "index").read_bytes()
            return {entry.path: entry for entry in msgspec.msgpack.decode(data, type=list[Entry])}
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            trees.remove(self.directory / "files")
            (self.directory / "files").mkdir(mode=0o755)
            return {}


class ContextStore:
    """Safe to use from any thread."""

    def __init__(self, root: Path) -> None:
        """:param root: ``<root>/build``; contexts of builds that a killed daemon was at are removed."""
        self.root = root / "contexts"
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        for entry in self.root.iterdir():
            if entry.name.startswith("once-"):
                trees.remove(entry)

    def once(self) -> Context:
        """An empty context that goes with its build."""
        identifier = f"once-{secrets.token_hex(8)}"
        directory = self._make(identifier)
        return Context(self, identifier, directory, keep=False)

    def synced(self, name: str) -> SyncedContext:
        """The context that a client keeps under ``name`` (hex digits), or another one while that is in
        use.
        """
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
        """Remove a kept context; ``False`` while it is in use."""
        with self._lock:
            if identifier in self._busy:
                return False
            self._busy.add(identifier)
        try:
            trees.remove(self.root / identifier)
        finally:
            self.release(identifier)
        return True


def parse_manifest(data: bytes) -> list[Entry]:
    """Six fields an entry, each closed by NUL: path, kind, mode (octal), size, mtime (ns), link target; then
    a seventh, the stamp. :raises InvalidArgument: anything else."""
    fields = data.split(b"\0")
    if fields.pop() or len(fields) % _FIELDS:
        raise InvalidArgument("invalid context manifest")
    found = []
    try:
        for at in range(0, len(fields), _FIELDS):
            path, kind, mode, size, mtime, target, stamp = fields[at : at + _FIELDS]
            if clean(path) != path or not path or kind not in (b"f", b"d", b"l", b"o"):
                raise InvalidArgument(f"invalid context manifest: {path[:80]!r}")
            found.append(Entry(path, kind.decode(), int(mode, 8), int(size), int(mtime), target, b"", stamp))
    except (ValueError, tf.BadTar) as e:
        raise InvalidArgument("invalid context manifest") from e
    if len(found) > ENTRIES_MAX:
        raise InvalidArgument(f"cannot read the build context: it has more than {ENTRIES_MAX} files")
    return found


def _entry(fields: Sequence[bytes], known: dict[bytes, Entry]) -> Entry | None:
    """From what a child says of one member."""
    name, kind, mode, size, mtime, target, digest = fields
    path = clean(name)
    if not path:
        return None
    if kind == tf.LINK:
        first = known.get(clean(target))
        return None if first is None else msgspec.structs.replace(first, path=path)
    return Entry(
        path,
        _KINDS.get(kind, OTHER),
        int(mode, 8),
        int(size) if kind == tf.FILE else 0,
        int(mtime),
        target if kind == tf.SYMLINK else b"",
        bytes.fromhex(digest.decode()),
    )
