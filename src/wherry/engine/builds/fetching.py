"""Sources that ADD, named contexts and remote contexts fetch, kept in the cache.

    <root>/build/fetched/<id>/files/     the fetched files
    <root>/build/fetched/<id>/meta       facts about them (JSON): digest, ETag, subdirectory

A file is downloaded again only if it has changed since. With a given checksum the server is not asked at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from wherry import threads
from wherry.engine.builds import git
from wherry.engine.builds.cache import BuildCache
from wherry.errors import InvalidArgument
from wherry.linux import files, trees
from wherry.model import typed
from wherry.model.mount import Mount
from wherry.registry.download import DownloadAnswer, KnownDownload, download, shown
from wherry.solver.graph import FetchOp
from wherry.state.builds import REMOTE
from wherry.storage.confined import build_files
from wherry.storage.confined.children import Ending

_SIZE_MAX = 64 << 30


@dataclass(frozen=True)
class Fetched:
    """A directory with fetched files: its ``digest``, the ``record`` of the cache that keeps it, the
    ``commit`` of a repository.
    """

    directory: Path
    digest: str
    record: str
    commit: str = ""


class _Meta(msgspec.Struct):
    digest: str
    etag: str = ""
    modified: str = ""
    subdir: str = ""
    commit: str = ""


class SourceFetcher:
    """Used on the loop."""

    def __init__(self, cache: BuildCache) -> None:
        self._cache = cache
        self._locks: dict[str, asyncio.Lock] = {}

    async def fetch(self, op: FetchOp) -> Fetched:
        """Fetch it, in its present version. The record is held for the caller.

        :raises InvalidArgument: it does not exist, or its checksum does not match.
        """
        key = hashlib.sha256(
            json.dumps(["fetch", op.kind, op.url, op.filename, op.keep_git_dir]).encode()
        ).hexdigest()
        async with self._locks.setdefault(key, asyncio.Lock()):
            row = self._cache.place(REMOTE, "fetched", key, f"{op.kind} {_shown(op)}")
            assert row.place is not None
            place = self._cache.root / row.place
            try:
                if op.kind == "git":
                    located = await git.locate(git.parse(op.url))
                    meta = await threads.waits(self._git, op, located, place)
                else:
                    meta = await self._http(op, place)
            except BaseException:
                self._cache.release([row.id])
                raise
            await threads.disk(self._cache.remeasure, row.id)
        directory = place / "files"
        return Fetched(
            directory / meta.subdir if meta.subdir else directory, meta.digest, row.id, meta.commit
        )

    # ---- HTTP ----------------------------------------------------------------------------------------------

    async def _http(self, op: FetchOp, place: Path) -> _Meta:
        known = _read(place)
        wanted = _sha256(op.checksum)
        if known is not None and wanted and known.digest == wanted:
            return known
        partial = place / "partial"
        with partial.open("wb") as out:
            before = KnownDownload(known.etag, known.modified) if known is not None else KnownDownload()
            answer = await download(op.url, out.write, known=before, limit=_SIZE_MAX)
        if answer is None and known is not None:
            partial.unlink()
            answer_digest = known.digest
        else:
            assert answer is not None
            answer_digest = answer.digest
        if wanted and answer_digest != wanted:
            partial.unlink(missing_ok=True)
            raise InvalidArgument(f"digest mismatch sha256:{answer_digest}: sha256:{wanted}")
        if answer is None:
            assert known is not None
            return known
        return await threads.disk(self._settle, op, place, partial, answer)

    @staticmethod
    def _settle(op: FetchOp, place: Path, partial: Path, answer: DownloadAnswer) -> _Meta:
        directory = place / "files"
        (place / "meta").unlink(missing_ok=True)
        trees.remove(directory)
        directory.mkdir(mode=0o755)
        if op.kind == "archive":
            _unpack(partial, directory, op)
            partial.unlink()
        else:
            target = directory / os.path.basename(op.filename)
            partial.rename(target)
            target.chmod(0o600)
            os.utime(target, ns=(answer.mtime, answer.mtime))
        meta = _Meta(answer.digest, answer.known.etag, answer.known.modified)
        files.write_atomic(place / "meta", msgspec.json.encode(meta))
        return meta

    # ---- git -----------------------------------------------------------------------------------------------

    @staticmethod
    def _git(op: FetchOp, located: git.Located, place: Path) -> _Meta:
        repository = located.repository
        commit = git.commit_of(located)
        if op.checksum and not (len(op.checksum) >= 7 and commit.startswith(op.checksum)):
            raise InvalidArgument(f"expected checksum to match {op.checksum}, got {commit}")
        digest = hashlib.sha256(f"{commit} {repository.subdir} {op.keep_git_dir}".encode()).hexdigest()
        known = _read(place)
        if known is not None and known.digest == digest:
            return known
        directory = place / "files"
        (place / "meta").unlink(missing_ok=True)
        trees.remove(directory)
        directory.mkdir(mode=0o755)
        git.checkout(located, commit, directory, keep_git=op.keep_git_dir)
        meta = _Meta(digest, subdir=repository.subdir, commit=commit)
        files.write_atomic(place / "meta", msgspec.json.encode(meta))
        return meta


def _unpack(archive: Path, directory: Path, op: FetchOp) -> None:
    """An archive that is a context. :raises InvalidArgument: broken, or not an archive."""
    fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mount = Mount("bind", str(directory), ("rbind",))
        what = f"cannot unpack {shown(op.url)}"
        build_files.receive(mount, (), fd, lambda _fields: None, what=what, ending=Ending())
    finally:
        os.close(fd)


def _read(place: Path) -> _Meta | None:
    try:
        return typed.from_json((place / "meta").read_bytes(), _Meta)
    except (OSError, msgspec.DecodeError):
        return None


def _sha256(checksum: str) -> str:
    """The hex part of ``sha256:…``; ``""`` if empty. :raises InvalidArgument: another algorithm."""
    if not checksum:
        return ""
    algorithm, colon, value = checksum.partition(":")
    if algorithm != "sha256" or not colon or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InvalidArgument(f"unsupported checksum {checksum[:100]!r}: sha256:<64 hex digits>")
    return value


def _shown(op: FetchOp) -> str:
    return git.parse(op.url).address.rpartition("@")[2] if op.kind == "git" else shown(op.url)
