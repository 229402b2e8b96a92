"""Definitions (LLB): our own, which represent held results, and the few that clients send.

Clients send sources (git, HTTP, a directory) and a copy that unpacks an archive, to look for files before a
build. Operations that run commands, merge or compare are refused with an error that names them: they need a
real BuildKit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from wherry.buildkit.client import SessionClient
from wherry.buildkit.proto import ops_pb2
from wherry.engine.builds.onebuild import Build, CachedTree, FetchOp
from wherry.engine.builds.remote import filename_of
from wherry.errors import InvalidArgument, NotImplemented_

_HELD = "wherry-ref://"
_OPS_MAX = 64
_HTTP = {"http.filename", "http.checksum"}
_GIT = {"git.fullurl", "git.keepgitdir", "git.authheadersecret", "git.authtokensecret", "git.subdir"}


def opaque(ref: str) -> ops_pb2.Definition:
    """A definition that represents a held result; clients send it back unchanged."""
    source = ops_pb2.Op(source=ops_pb2.SourceOp(identifier=_HELD + ref)).SerializeToString()
    digest = _digest(source)
    last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest)]).SerializeToString()
    made = ops_pb2.Definition(ops=[source, last])
    made.metadata[digest].SetInParent()
    made.metadata[_digest(last)].SetInParent()
    return made


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def held_by(definition: ops_pb2.Definition) -> str:
    """The ref in one of our definitions; ``""`` for any other definition."""
    if len(definition.ops) != 2:
        return ""
    op = _op(definition.ops[0])
    found = op.source.identifier if op.HasField("source") else ""
    return found.removeprefix(_HELD) if found.startswith(_HELD) else ""


def _op(data: bytes) -> ops_pb2.Op:
    try:
        return ops_pb2.Op.FromString(data)
    except DecodeError as e:
        raise InvalidArgument("invalid definition: an operation cannot be read") from e


class Evaluator:
    """Carries out one definition."""

    def __init__(self, build: Build, client: SessionClient) -> None:
        self._build, self._client = build, client

    async def run(self, definition: ops_pb2.Definition) -> CachedTree:
        """:raises NotImplemented_: an unsupported operation; the text names it."""
        if len(definition.ops) > _OPS_MAX:
            raise NotImplemented_(f"definitions of more than {_OPS_MAX} operations are not supported")
        ops = {_digest(data): _op(data) for data in definition.ops}
        last = _op(definition.ops[-1])
        if last.WhichOneof("op") is not None or len(last.inputs) != 1:
            raise InvalidArgument("invalid definition: it names no result")
        return await self._tree(last.inputs[0], ops, 0)

    async def _tree(self, wanted: ops_pb2.Input, ops: Mapping[str, ops_pb2.Op], depth: int) -> CachedTree:
        op = ops.get(wanted.digest)
        if op is None or depth > _OPS_MAX:
            raise InvalidArgument("invalid definition: an input is missing")
        kind = op.WhichOneof("op")
        if kind == "source":
            return await self._source(op.source)
        if kind == "file":
            return await self._file(op, ops, depth)
        names = {"exec": "LLB exec", "merge": "LLB merge", "diff": "LLB diff", "build": "LLB build"}
        raise NotImplemented_(f"{names.get(kind or '', f'LLB {kind}')} is not supported")

    async def _source(self, source: ops_pb2.SourceOp) -> CachedTree:
        scheme, _, rest = source.identifier.partition("://")
        if scheme in ("http", "https"):
            _known(source, _HTTP)
            name = source.attrs.get("http.filename", "") or filename_of(source.identifier) or "download"
            checksum = source.attrs.get("http.checksum", "")
            op = FetchOp("http", source.identifier, checksum, name)
            return await self._build.fetch(op, self._client)
        if scheme == "git":
            _known(source, _GIT)
            if source.attrs.get("git.authtokensecret", "") not in ("", "GIT_AUTH_TOKEN") or source.attrs.get(
                "git.authheadersecret", ""
            ) not in ("", "GIT_AUTH_HEADER"):
                raise NotImplemented_("git credentials of other secrets are not supported")
            address = source.attrs.get("git.fullurl", "") or f"https://{rest.partition('#')[0]}"
            part = rest.partition("#")[2]
            url = f"{address}#{part}" if part else address
            keep = source.attrs.get("git.keepgitdir", "") == "true"
            return await self._build.fetch(FetchOp("git", url, keep_git_dir=keep), self._client)
        if scheme == "local":
            return await self._local(source, rest)
        raise NotImplemented_(f"LLB source {scheme or source.identifier[:100]!r} is not supported")

    async def _local(self, source: ops_pb2.SourceOp, name: str) -> CachedTree:
        for key in source.attrs:
            if key not in ("local.session", "local.sharedkeyhint", "local.unique", "local.differ"):
                raise NotImplemented_(f"attribute {key!r} of an LLB source is not supported")
        context = await self._client.directory(name)
        return CachedTree(context.directory / "files")

    async def _file(self, op: ops_pb2.Op, ops: Mapping[str, ops_pb2.Op], depth: int) -> CachedTree:
        """A copy that unpacks a whole archive; clients use no other form."""
        actions = op.file.actions
        if len(actions) != 1 or actions[0].WhichOneof("action") != "copy":
            kinds = ", ".join(sorted({one.WhichOneof("action") or "nothing" for one in actions}))
            raise NotImplemented_(f"LLB file operation {kinds} is not supported: one copy with unpack is")
        copy = actions[0].copy
        if not copy.attemptUnpackDockerCompatibility or copy.dest.strip("/"):
            raise NotImplemented_("LLB file operation copy is supported only with unpack, to /")
        if actions[0].input != -1 or actions[0].secondaryInput >= len(op.inputs):
            raise NotImplemented_("LLB file operation copy is supported only onto nothing")
        source = await self._tree(op.inputs[actions[0].secondaryInput], ops, depth + 1)
        return await self._build.unpacked(source, copy.src.strip("/").rpartition("/")[2])


def _known(source: ops_pb2.SourceOp, known: set[str]) -> None:
    for key in source.attrs:
        if key not in known:
            raise NotImplemented_(f"attribute {key!r} of an LLB source is not supported")
