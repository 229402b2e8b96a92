"""Attach sessions: one client's connection to a container's or exec's output and input.

A session may be made before its container starts; the start connects it before anything can be printed.
Output is read as fast as the client takes it, in batches of up to half a megabyte. As with Docker, a client
that stops reading eventually makes the container's process wait: output is never lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wherry.engine.attributes import event_attributes
from wherry.engine.ground import Ground
from wherry.errors import Conflict
from wherry.runtime.attach import AttachSocket
from wherry.state.containers import ContainerRow


class AttachStream(Protocol):
    """The client's side of a session: a hijacked connection, a web socket or a response body."""

    async def send(self, data: bytes | memoryview) -> None:
        """Send data; waits while the client is slow. :raises ConnectionError: the client is gone."""

    @property
    def offer(self) -> Callable[[memoryview], bool] | None:
        """Sends data without waiting, after the first :meth:`send`; ``None`` where that is not possible.

        False: the data is taken, but the client is slow; nothing more may follow before the next
        :meth:`send`, of nothing if need be. It raises as that does.
        """

    def receive(self) -> AsyncIterator[bytes]:
        """The client's input until it ends or the client disconnects."""


@dataclass(frozen=True)
class AttachOptions:
    """``framed``: Docker's 8-byte headers, for processes without a terminal."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    stdin_once: bool = True
    detach_keys: bytes = b"\x10\x11"


class AttachSession:
    """Made by the engine, run by the API. ``with session:`` closes its connection, even if the session never
    ran:
    otherwise the process would block on a connected client that does not read."""

    def __init__(self, options: AttachOptions, on_detach: Callable[[], None] | None = None) -> None:
        self._options = options
        self._socket: AttachSocket | None = None
        self._ready = asyncio.Event()
        self._on_detach = on_detach
        self._closed = False
        self.detached = False

    def __enter__(self) -> AttachSession:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closed = True
        if self._socket is not None:
            self._socket.close()

    def connect(self, bundle: Path) -> None:
        """Called once the process's attach socket is there."""
        options = self._options
        if self._closed:
            return
        try:
            self._socket = AttachSocket.connect(
                bundle, framed=options.framed, stdout=options.stdout, stderr=options.stderr
            )
        except OSError:
            pass  # It has ended already: the session ends at once.
        self._ready.set()

    def abandon(self) -> None:
        """The process will never be started."""
        self._ready.set()

    async def run(self, client: AttachStream) -> None:
        """Move bytes both ways until the process ends, the client leaves, or detaches."""
        await self._ready.wait()
        if self._socket is None:
            return
        output = asyncio.ensure_future(self._output(client, self._socket))
        pumps: set[asyncio.Future[None]] = {output}
        if self._options.stdin:
            pumps.add(asyncio.ensure_future(self._input(client, self._socket)))
        else:
            pumps.add(asyncio.ensure_future(self._until_gone(client)))
        try:
            while output in pumps:
                done, pumps = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                if any(isinstance(f.exception(), _Detached) for f in done):
                    self.detached = True
                    if self._on_detach is not None:
                        self._on_detach()
                    break
                if any(isinstance(f.exception(), ConnectionError) for f in done):
                    break
        finally:
            for pump in (output, *pumps):
                pump.cancel()
            await asyncio.gather(output, *pumps, return_exceptions=True)

    async def _output(self, client: AttachStream, source: AttachSocket) -> None:
        data: bytes | memoryview | None = await source.read()
        while data is not None:
            await client.send(data)
            if client.offer is None:
                data = await source.read()
            else:
                data = b"" if await source.pump(client.offer) else None

    async def _input(self, client: AttachStream, target: AttachSocket) -> None:
        scanner = _DetachScanner(self._options.detach_keys)
        async for chunk in client.receive():
            passed, detached = scanner.scan(chunk)
            try:
                if passed:
                    await target.write(passed)
            except OSError:
                return  # The process no longer reads; its output may go on.
            if detached:
                raise _Detached
        rest = scanner.rest()
        try:
            if rest:
                await target.write(rest)
        except OSError:
            return
        if self._options.stdin_once:
            target.end_input()

    @staticmethod
    async def _until_gone(client: AttachStream) -> None:
        """A client without input may still half-close its connection. Anything it sends is discarded."""
        async for _chunk in client.receive():
            pass


class AttachService:
    """Attach sessions on containers that run, or that will be started."""

    def __init__(self, ground: Ground) -> None:
        self._containers, self._events, self._live = ground.containers, ground.events, ground.live

    def attach(self, wanted: str, options: AttachOptions) -> tuple[ContainerRow, AttachSession]:
        """A session on the running task, or one that waits for the next start.

        :raises Conflict: the container is paused.
        """
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        if row.state.status == "paused":
            raise Conflict(f"container {row.id} is paused, unpause the container before attach")
        if row.state.status == "restarting":
            raise Conflict(f"container {row.id} is restarting, wait until the container is running")
        session = AttachSession(
            options,
            on_detach=lambda: self._events.publish("container", "detach", row.id, event_attributes(row)),
        )
        if live.task is not None:
            session.connect(live.task.directory)
        else:
            live.pending.append(session)
        self._events.publish("container", "attach", row.id, event_attributes(row))
        return row, session


class _Detached(Exception):
    pass


class _DetachScanner:
    """Finds the detach sequence in a stream, even if it is split between chunks."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def scan(self, chunk: bytes) -> tuple[bytes, bool]:
        """The bytes to pass on, and whether the sequence is complete."""
        keys = self._keys
        if not keys or (self._matched == 0 and keys[:1] not in chunk):
            return chunk, False
        out = bytearray()
        for byte in chunk:
            if byte == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    return bytes(out), True
                continue
            out += keys[: self._matched]
            self._matched = 0
            if byte == keys[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False

    def rest(self) -> bytes:
        held, self._matched = self._keys[: self._matched], 0
        return held


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as bytes (API "detachKeys": a letter, ``DEL``, or ``ctrl-`` and one of
    ``a-z @ [ \\ ] ^ _``, in small letters).

    :raises ValueError: malformed.
    """
    out = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            out += key.encode()
            continue
        control = key.removeprefix("ctrl-")
        is_control = len(control) == 1 and control in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
        if key.startswith("ctrl-") and is_control:
            out.append(ord(control.upper()) & 0x1F)
            continue
        if key == "DEL":
            out.append(127)
            continue
        raise ValueError(f"Unknown character: '{key}'")
    return bytes(out)
