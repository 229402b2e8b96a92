"""Plugins of Docker's first kind: programs of this host that speak JSON over HTTP on a socket
(docs.docker.com/engine/extend/plugin_api). They are found by name when somebody asks for one:

    /run/docker/plugins/<name>.sock, /run/docker/plugins/<name>/<name>.sock
    /etc/docker/plugins/<name>.spec, .json, each also in a directory <name>; then /usr/lib/docker/plugins

A plugin may hang, die, or answer one byte a minute. Every call has a time limit. The number of open calls per
plugin is limited too; further calls fail at once, so that no plugin can occupy all threads.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wherry.errors import Internal, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
TIMEOUT = 30.0
"""Seconds a call may take in all, unless the caller says less."""
_OPEN_MAX = 6
_WAIT_MAX = 2.0
_ANSWER_MAX = 4 << 20
_DESCRIPTION_MAX = 64 << 10
_CONTENT = "application/vnd.docker.plugins.v1.2+json"


@dataclass(frozen=True)
class Directories:
    """Where to look; other places in tests."""

    sockets: tuple[Path, ...] = (Path("/run/docker/plugins"),)
    specs: tuple[Path, ...] = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))


@dataclass(frozen=True)
class Plugin:
    """``address`` is ``unix:///path``, ``tcp://host:port``, ``http://`` or ``https://host:port``."""

    name: str
    address: str
    implements: frozenset[str] = frozenset()
    tls: dict[str, Any] = field(default_factory=dict)
    places: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_OPEN_MAX), compare=False
    )

    def call(
        self, method: str, body: dict[str, Any] | None = None, *, timeout: float = TIMEOUT
    ) -> dict[str, Any]:
        """One call; ``method`` as ``VolumeDriver.Create``. Blocks for ``timeout`` seconds at the most.

        :raises Unavailable: it does not answer. :raises Internal: it refuses, with its own words.
        """
        deadline = time.monotonic() + timeout
        if not self.places.acquire(timeout=min(_WAIT_MAX, timeout)):
            raise Unavailable(
                f"plugin {self.name} does not answer {method}: it has {_OPEN_MAX} calls to answer already"
            )
        try:
            status, text = self._exchange(method, body or {}, deadline)
        except TimeoutError as e:
            raise Unavailable(f"plugin {self.name} does not answer {method} within {timeout:g} s") from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            why = str(e) or type(e).__name__
            raise Unavailable(f"plugin {self.name} does not answer {method}: {why}") from e
        finally:
            self.places.release()
        return self._answer(method, status, text)

    def _exchange(self, method: str, body: dict[str, Any], deadline: float) -> tuple[int, bytes]:
        with closing(self._connection(deadline - time.monotonic())) as connection:
            connection.connect()
            with _cut_off(connection.sock, deadline) as is_cut:
                headers = {"Accept": _CONTENT, "Content-Type": _CONTENT}
                try:
                    connection.request("POST", f"/{method}", body=json.dumps(body).encode(), headers=headers)
                    response = connection.getresponse()
                    text = response.read(_ANSWER_MAX + 1)
                except (OSError, http.client.HTTPException) as e:
                    if is_cut():
                        raise TimeoutError from e
                    raise
                if is_cut():
                    raise TimeoutError
        return response.status, text

    def _answer(self, method: str, status: int, text: bytes) -> dict[str, Any]:
        if len(text) > _ANSWER_MAX:
            raise Internal(f"plugin {self.name} answers {method} with more than {_ANSWER_MAX} bytes")
        try:
            answer = json.loads(text or b"{}")
        except (ValueError, RecursionError) as e:
            raise Internal(f"plugin {self.name} answers {method} with no JSON") from e
        if not isinstance(answer, dict):
            raise Internal(f"plugin {self.name} answers {method} with no object")
        refusal = answer.get("Err") or answer.get("Error")
        if refusal or status != 200:
            reason = str(refusal)[:2000] if refusal else f"HTTP {status}"
            raise Internal(f"plugin {self.name}: {method}: {reason}")
        return answer

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        timeout = max(0.001, timeout)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, timeout)
        if parts.scheme == "https" or self.tls:
            return http.client.HTTPSConnection(
                parts.hostname or "", parts.port or 443, timeout=timeout, context=_context(self.tls)
            )
        if parts.scheme not in ("tcp", "http"):
            raise ValueError(f"its address {self.address[:200]} is of no known kind")
        return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)


@contextmanager
def _cut_off(sock: socket.socket, deadline: float) -> Iterator[Any]:
    """Shut ``sock`` down at the deadline: a socket's own timeout restarts with every byte."""
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield cut.is_set
    finally:
        timer.cancel()


def _context(tls: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.get("CAFile") or None)
    if tls.get("InsecureSkipVerify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.get("CertFile"):
        context.load_cert_chain(tls["CertFile"], tls.get("KeyFile") or None)
    return context


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Plugins:
    """The existing plugins, activated when they are first used. Safe to use from any thread."""

    def __init__(self, directories: Directories | None = None, *, timeout: float = TIMEOUT) -> None:
        self._directories = directories or Directories()
        self._timeout = timeout
        self._found: dict[str, Plugin] = {}

    def find(self, name: str, kind: str) -> Plugin:
        """:param kind: ``VolumeDriver``, ``NetworkDriver`` or ``IpamDriver``.

        :raises NotFound: there is none. :raises Unavailable, Internal: it is there and does not answer.
        """
        missing = NotFound(f'plugin "{name[:64]}" not found')
        if not _NAME.fullmatch(name):
            raise missing
        plugin = self._found.get(name)
        if plugin is None:
            plugin = self._discover(name)
            if plugin is None:
                raise missing
            answer = plugin.call("Plugin.Activate", timeout=self._timeout)
            implements = answer.get("Implements")
            kinds = frozenset(map(str, implements)) if isinstance(implements, list) else frozenset()
            plugin = Plugin(plugin.name, plugin.address, kinds, plugin.tls, plugin.places)
            plugin = self._found.setdefault(name, plugin)
        if kind not in plugin.implements:
            raise missing
        return plugin

    def call(
        self,
        name: str,
        method: str,
        body: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """:meth:`find` and :meth:`Plugin.call`. One that does not answer is looked for anew the next time, as
        it may come back with another address.

        :param timeout: seconds, no more than those of all plugins.
        """
        plugin = self.find(name, method.partition(".")[0])
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        try:
            return plugin.call(method, body, timeout=limit)
        except Unavailable:
            self._found.pop(name, None)
            raise

    def _discover(self, name: str) -> Plugin | None:
        for directory in self._directories.sockets:
            for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                if path.is_socket():
                    return Plugin(name, f"unix://{path}")
        for directory in self._directories.specs:
            for path in (directory / f"{name}.spec", directory / name / f"{name}.spec"):
                if path.is_file():
                    return Plugin(name, _text(name, path).strip())
            for path in (directory / f"{name}.json", directory / name / f"{name}.json"):
                if path.is_file():
                    return _described(name, path)
        return None


def _text(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_DESCRIPTION_MAX).decode()
    except (OSError, UnicodeDecodeError) as e:
        raise Internal(f"cannot read the description of plugin {name} in {path}: {e}") from e


def _described(name: str, path: Path) -> Plugin:
    text = _text(name, path)
    try:
        value = json.loads(text)
        return Plugin(name, str(value["Addr"]), tls=dict(value.get("TLSConfig") or {}))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Internal(f"cannot read the description of plugin {name} in {path}: {e}") from e
