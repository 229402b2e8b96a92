"""A build's requests to its client: calls on the client's session."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from wherry import threads
from wherry.buildkit import filesync, sending
from wherry.buildkit.attributes import AskedBuild
from wherry.buildkit.contents import SessionBlobs, send_layout
from wherry.buildkit.filesync import WantedFiles
from wherry.buildkit.policy import BuildPolicy
from wherry.buildkit.proto import auth_pb2, secrets_pb2, ssh_pb2
from wherry.buildkit.proto.auth_rpc import Auth
from wherry.buildkit.proto.secrets_rpc import Secrets
from wherry.buildkit.proto.ssh_rpc import SSH
from wherry.buildkit.proto.upload_rpc import Upload
from wherry.buildkit.sessions import ClientSession, ClientSessions
from wherry.buildkit.status import BuildKitReport
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.clients import Blobs, BuildContext, Delivery, GivenDockerfile, Source
from wherry.engine.builds.receiving import receive_archive
from wherry.engine.builds.requests import LOCAL, OCI
from wherry.errors import InvalidArgument
from wherry.model.credentials import Credentials
from wherry.model.ignore import read as read_ignore
from wherry.rpc.metadata import Metadata
from wherry.rpc.status import Code, RpcError

T = TypeVar("T")
_QUICK = 60.0
"""Seconds within which a client must answer a small request; it may ask the user for a password."""
_SECRET_MAX = 512 << 10
_PIECE = 64 << 10
_DOCKER_HUB = "docker.io"


class SessionClient:
    """See :class:`wherry.engine.builds.clients.BuildClient`; for one request of one build."""

    def __init__(
        self,
        session: ClientSession,
        sessions: ClientSessions,
        cache: BuildCache,
        report: BuildKitReport,
        asked: AskedBuild,
        policy: BuildPolicy | None,
    ) -> None:
        self._session, self._sessions, self._cache, self._report = session, sessions, cache, report
        self._asked, self._policy = asked, policy
        self._contexts: dict[str, asyncio.Task[BuildContext]] = {}
        self._definition: Mapping[str, bytes] | None = None
        self._ignore: bytes | None = None

    async def release(self) -> None:
        """Release the contexts."""
        for task in self._contexts.values():
            task.cancel()
        found = await asyncio.gather(*self._contexts.values(), return_exceptions=True)
        self._contexts.clear()
        came = [context for context in found if isinstance(context, BuildContext)]

        def release() -> None:
            for context in came:
                context.release()

        await threads.disk.surely(release)

    # ---- files ---------------------------------------------------------------------------------------------

    async def _of(self, directory: str) -> ClientSession:
        """The session that serves a directory; if several builds share a session, not the build's own."""
        other = self._asked.sessions.get(directory, "")
        return await self._sessions.get(other) if other else self._session

    async def dockerfile(self, name: str) -> GivenDockerfile | None:
        directory = self._asked.definition
        if not directory:
            return None
        found = await self._small(directory, name)
        text = found.get(name)
        if text is None and name.rpartition("/")[2] == "Dockerfile":
            text = found.get(name.removesuffix("Dockerfile") + "dockerfile")
        if text is None:
            raise InvalidArgument(f"failed to read dockerfile: open {name}: no such file or directory")
        ignore = found.get(f"{name}.dockerignore")
        if ignore is None and not (self._asked.upload or self._asked.request.remote):
            ignore = await self._ignored(self._asked.main)
        self._ignore = ignore
        return GivenDockerfile(text, ignore)

    async def directory(self, name: str) -> BuildContext:
        """A directory of the client by the client's name, for reading single files."""
        if f"/{name}" not in self._contexts:
            self._contexts[f"/{name}"] = asyncio.ensure_future(self._synced(name, name, []))
        return await asyncio.shield(self._contexts[f"/{name}"])

    async def _small(self, directory: str, name: str) -> Mapping[str, bytes]:
        if self._definition is None:
            with self._report.definition_task(f"load build definition from {name}") as tell:
                lower = name.removesuffix("Dockerfile") + "dockerfile"
                wanted = WantedFiles(directory, follow=[name, f"{name}.dockerignore", lower])
                self._definition = await filesync.read_small(
                    await self._of(directory), wanted, "the Dockerfile"
                )
                size = sum(map(len, self._definition.values()))
                tell({"status": f"transferring dockerfile: {_shown(size)}"})
        return self._definition

    async def _ignored(self, directory: str) -> bytes | None:
        with self._report.task("load .dockerignore") as tell:
            wanted = WantedFiles(directory, follow=[".dockerignore"])
            found = await filesync.read_small(await self._of(directory), wanted, ".dockerignore")
            tell({"status": f"transferring context: {_shown(sum(map(len, found.values())))}"})
        return found.get(".dockerignore")

    async def files(self, name: str) -> BuildContext:
        if name not in self._contexts:
            self._contexts[name] = asyncio.ensure_future(self._files(name))
        return await asyncio.shield(self._contexts[name])

    async def _files(self, name: str) -> BuildContext:
        if name == "" and self._asked.upload:
            return await self._uploaded(self._asked.upload)
        directory = self._asked.main if name == "" else self._asked.locals.get(name, "")
        if not directory:
            raise InvalidArgument(f"no build context {name or 'was sent'}")
        source = Source(f"local://{directory}")
        await self.check(source, partial(_same, source))
        known = name == "" and self._definition is not None
        ignore = self._ignore if known else await self._ignored(directory)
        exclude = read_ignore(ignore.decode("utf-8", "replace")) if ignore else []
        return await self._synced(name, directory, list(map(str, exclude)))

    async def _synced(self, name: str, directory: str, exclude: Sequence[str]) -> BuildContext:
        session = await self._of(directory)
        shared = self._asked.keys.get(f"localdir:{directory}", "") or session.key
        key = hashlib.sha256(f"{shared}\0{directory}".encode()).hexdigest()
        context = await threads.short(self._cache.contexts.synced, key)
        try:
            size = 0

            def told(came: int) -> None:
                nonlocal size
                if came - size >= 1 << 20:
                    self._report.transferred(name, came)
                    size = came

            last = 0

            def counted(came: int) -> None:
                nonlocal last
                last = came
                told(came)

            await filesync.receive(session, WantedFiles(directory, exclude), context, counted)
            self._report.transferred(name, last, done=True)
            note = partial(
                self._cache.note_context, context.id, "local source for context", context.tree.size
            )
            await threads.short(note)
        except BaseException:
            await asyncio.shield(threads.disk(context.release))
            raise
        return context

    async def _uploaded(self, identifier: str) -> BuildContext:
        """An archive from the client's standard input."""
        metadata = Metadata({"urlpath": f"/{identifier}", "urlhost": "buildkit-session"})
        context = await threads.short(self._cache.contexts.once)
        try:
            async with (
                self._session.client.stream(Upload.Pull, metadata) as call,
                filesync.pipe_to(lambda fd: receive_archive(context, fd)) as out,
            ):
                await call.end()
                while (message := await call.receive()) is not None:
                    out.write(message.data)
                    await out.drain()
        except BaseException:
            await asyncio.shield(threads.disk(context.release))
            raise
        return context

    # ---- secrets and agents --------------------------------------------------------------------------------

    async def secret(self, name: str) -> bytes | None:
        if not self._session.supports(Secrets.GetSecret):
            return None
        try:
            answer = await self._session.client.unary(
                Secrets.GetSecret, secrets_pb2.GetSecretRequest(ID=name), timeout=_QUICK
            )
        except RpcError as e:
            if e.code is Code.NOT_FOUND:
                return None
            raise InvalidArgument(f"secret {name}: {e.message}") from e
        if len(answer.data) > _SECRET_MAX:
            raise InvalidArgument(f"invalid secret {name}: more than {_SECRET_MAX} bytes")
        return answer.data

    async def has_agent(self, name: str) -> bool:
        if not self._session.supports(SSH.CheckAgent):
            return False
        try:
            await self._session.client.unary(
                SSH.CheckAgent, ssh_pb2.CheckAgentRequest(ID=name), timeout=_QUICK
            )
        except RpcError as e:
            if e.code is Code.UNAVAILABLE:
                raise
            return False
        return True

    async def to_agent(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        metadata = Metadata({"buildkit.ssh.id": name})
        async with self._session.client.stream(SSH.ForwardAgent, metadata) as call:

            async def there() -> None:
                while piece := await reader.read(_PIECE):
                    await call.send(ssh_pb2.BytesMessage(data=piece))
                await call.end()

            sending_ = asyncio.ensure_future(there())
            try:
                while (message := await call.receive()) is not None:
                    writer.write(message.data)
                    await writer.drain()
            finally:
                sending_.cancel()
                await asyncio.gather(sending_, return_exceptions=True)

    # ---- who it is, what it allows -------------------------------------------------------------------------

    async def credentials(self, registry: str) -> Sequence[Credentials]:
        if not self._session.supports(Auth.Credentials):
            return ()
        host = "registry-1.docker.io" if registry == _DOCKER_HUB else registry
        answer = await self._session.client.unary(
            Auth.Credentials, auth_pb2.CredentialsRequest(Host=host), timeout=_QUICK
        )
        if not answer.Secret:
            return ()
        if not answer.Username:
            return (Credentials(identity_token=answer.Secret),)
        return (Credentials(answer.Username, answer.Secret),)

    async def check(self, source: Source, more: Callable[[], Awaitable[Source]]) -> None:
        if self._policy is not None:
            await self._policy.check(source, more)

    # ---- results -------------------------------------------------------------------------------------------

    async def deliver(self, delivery: Delivery) -> bool:
        output = delivery.output
        with self._report.task(
            "exporting to client directory" if output.kind == LOCAL else "sending tarball"
        ):
            if output.kind == LOCAL:
                await sending.send_directory(self._session, delivery.number, delivery.write, self._cache.root)
            elif output.kind == OCI and not output.tar:
                await send_layout(self._session, delivery.write, self._cache.root)
            else:
                await sending.send_archive(self._session, delivery.number, delivery.write)
        return True

    def blobs(self, store: str) -> Blobs:
        return SessionBlobs(self._session, store)


async def _same(source: T) -> T:
    return source


def _shown(size: int) -> str:
    """A size in the form that clients show."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.4g}{unit}" if unit == "B" else f"{value:.2f}{unit}"
        value /= 1000
    return f"{value:.2f}GB"
