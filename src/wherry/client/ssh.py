"""A daemon on another machine: ``ssh`` runs ``dial-stdio`` there, and we speak through its pipes.

``ssh://[user@]host[:port][/path]``: ``wherry`` on the other machine, or ``docker`` if wherry is not installed
there, finds the daemon; a path names its socket. Keys, ports, jump hosts and shared connections
(ControlMaster) come from the user's ssh configuration. ssh has no terminal here, so it cannot ask for a
password: use an agent or SSH_ASKPASS.
"""

from __future__ import annotations

import os
import socket
import subprocess

from wherry.client.endpoint import CannotConnect, DaemonEndpoint, split_host_port
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
NAMES = PLAIN | frozenset("+@\\")
HOSTS = PLAIN | frozenset("%:")
PATHS = PLAIN | frozenset("/+@:,=")
SAID_MAX = 4096
"""The last bytes of ssh's stderr that are kept for the error message."""
REMOTE = (
    "sh -c 'if command -v wherry >/dev/null 2>&1; then exec wherry {options}system dial-stdio; "
    "else exec docker {options}system dial-stdio; fi'"
)
"""A command of one word, because the remote login shell may be any. ``options`` contains nothing special to a
shell."""


class SshTarget:
    """The parts of an ``ssh://`` address; none of them can be mistaken for an option or interpreted by a
    shell.

    :raises InvalidArgument: it is not usable; in the words of Docker's client.
    """

    __slots__ = ("name", "path", "port", "user")

    def __init__(self, address: str) -> None:
        authority, slash, path = address.partition("/")
        if "?" in address or "#" in address:
            what = "query parameters are" if "?" in address else "fragments are"
            raise InvalidArgument(f"invalid SSH URL: {what} not allowed: {address!r}")
        user, at, host = authority.rpartition("@")
        if ":" in user:
            raise InvalidArgument("invalid SSH URL: plain-text password is not supported")
        if not host.partition(":")[0]:
            raise InvalidArgument("invalid SSH URL: hostname is empty")
        self.name, port = split_host_port(host, 0)
        self.user, self.port, self.path = user, str(port or ""), slash + path if path else ""
        for what, text, allowed in (
            ("user name", self.user, NAMES),
            ("host name", self.name, HOSTS),
            ("path", self.path, PATHS),
        ):
            if text.startswith("-") or not allowed.issuperset(text):
                raise InvalidArgument(f"invalid SSH URL: {text!r} is no {what}")
        if at and not user:
            raise InvalidArgument("invalid SSH URL: user name is empty")

    def argv(self, timeout: float) -> list[str]:
        options = [*(["-l", self.user] if self.user else []), *(["-p", self.port] if self.port else [])]
        remote = REMOTE.format(options=f"-H unix://{self.path} " if self.path else "")
        connect = f"ConnectTimeout={max(1, int(timeout))}"
        return ["ssh", "-o", connect, "-T", *options, "--", self.name, remote]


def connect(endpoint: DaemonEndpoint) -> SshStream:
    """Start ssh; whether it can connect is only known at the first byte.

    :raises InvalidArgument: the address cannot be used.
    :raises CannotConnect: there is no ssh.
    """
    try:
        target = SshTarget(endpoint.address)
    except InvalidArgument as e:
        raise InvalidArgument(f"unable to parse docker host `{endpoint.host}`: {e.message}") from e
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            target.argv(endpoint.connect_timeout),
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as e:
        ours.close()
        raise CannotConnect(f"error during connect: ssh to {target.name}: {e.strerror}") from e
    finally:
        theirs.close()
    return SshStream(ours, process, endpoint.host)


class SshStream:
    """Our end of a socket pair, whose other end is ssh's stdin and stdout."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes], host: str) -> None:
        from threading import Thread

        self._socket, self._process, self._host = sock, process, host
        self._heard = False
        self._said = b""
        self.fileno, self.setblocking, self.settimeout = sock.fileno, sock.setblocking, sock.settimeout
        assert process.stderr is not None
        self._listener = Thread(target=self._listen, args=(process.stderr,), daemon=True)
        self._listener.start()

    def _listen(self, stderr: IO[bytes]) -> None:
        """Read ssh's stderr, so that its pipe does not fill up, and keep the last part; then wait for its
        end."""
        with stderr:
            while piece := os.read(stderr.fileno(), SAID_MAX):
                self._said = (self._said + piece)[-SAID_MAX:]
        self._process.wait()

    def _failure(self) -> CannotConnect:
        """The reason why no data came: ssh's messages and its exit status."""
        self._socket.close()
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listener.join(1)
        said = self._said.decode("utf-8", "replace").strip() or "it said nothing"
        return CannotConnect(f"error during connect: {self._host}: ssh ended with exit code {code}: {said}")

    def send(self, data: Any, /) -> int:
        try:
            return self._socket.send(data)
        except (BrokenPipeError, ConnectionResetError):
            if self._heard:
                raise
            raise self._failure() from None

    def recv(self, size: int, /) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: Any, /) -> int:
        try:
            size = self._socket.recv_into(buffer)
        except ConnectionResetError:  # ssh ended before it had read all of our data
            size = 0
        if not size and not self._heard:
            raise self._failure()
        self._heard = True
        return size

    def shutdown(self, how: int, /) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the connection. ssh sees the end of its input and exits by itself: other sessions may share
        it. An ssh that never connected is killed."""
        self._socket.close()
        if not self._heard and self._process.poll() is None:
            self._process.terminate()
