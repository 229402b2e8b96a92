"""Plugins of Docker's first kind: programs that speak JSON over HTTP on a socket (docs.docker.com, "Plugin
API"). They are found by name when somebody asks for one:

    /run/docker/plugins/<name>.sock, /run/docker/plugins/<name>/<name>.sock
    /etc/docker/plugins/<name>.spec, .json and the same in /usr/lib/docker/plugins
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wherry.errors import Internal, NotFound, Unavailable

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_TIMEOUT = 30.0
_ANSWER_MAX = 1 << 20
_CONTENT = "application/vnd.docker.plugins.v1.2+json"


@dataclass(frozen=True)
class Directories:
    """Where to look; other places in tests."""

    sockets: tuple[Path, ...] = (Path("/run/docker/plugins"),)
    specs: tuple[Path, ...] = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))


@dataclass(frozen=True)
class Plugin:
    """``address`` is ``unix:///path``, ``tcp://host:port`` or ``https://host:port``."""

    name: str
    address: str
    implements: frozenset[str] = frozenset()
    tls: dict[str, Any] = field(default_factory=dict)

    def call(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call; ``method`` as ``NetworkDriver.CreateNetwork``.

        :raises Unavailable: it does not answer. :raises Internal: it refuses, with its own words.
        """
        try:
            with closing(self._connection()) as connection:
                data = json.dumps(body or {}).encode()
                headers = {"Accept": _CONTENT, "Content-Type": _CONTENT}
                connection.request("POST", f"/{method}", body=data, headers=headers)
                response = connection.getresponse()
                text = response.read(_ANSWER_MAX)
        except (OSError, http.client.HTTPException) as e:
            raise Unavailable(f"plugin {self.name} does not answer {method}: {e}") from e
        try:
            answer = json.loads(text or b"{}")
        except ValueError as e:
            raise Internal(f"plugin {self.name} answers {method} with no JSON: {e}") from e
        if not isinstance(answer, dict):
            raise Internal(f"plugin {self.name} answers {method} with no object")
        refusal = answer.get("Err") or answer.get("Error")
        if refusal or response.status != 200:
            raise Internal(f"plugin {self.name}: {method}: {refusal or f'HTTP {response.status}'}")
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        if parts.scheme == "https" or self.tls:
            context = ssl.create_default_context(cafile=self.tls.get("CAFile") or None)
            if self.tls.get("InsecureSkipVerify"):
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.tls.get("CertFile"):
                context.load_cert_chain(self.tls["CertFile"], self.tls.get("KeyFile") or None)
            return http.client.HTTPSConnection(
                parts.hostname or "", parts.port or 443, timeout=_TIMEOUT, context=context
            )
        return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("plugin", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Plugins:
    """Those there are, activated when they are first asked for. Safe to use from any thread."""

    def __init__(self, directories: Directories | None = None) -> None:
        self._directories = directories or Directories()
        self._found: dict[str, Plugin] = {}

    def find(self, name: str, kind: str) -> Plugin:
        """:param kind: ``NetworkDriver`` or ``IpamDriver``. :raises NotFound: there is none.
        :raises Unavailable, Internal: it is there and does not answer.
        """
        missing = NotFound(
            f'could not find plugin {name[:64]} in v1 plugin registry: plugin "{name[:64]}" not found'
        )
        if not _NAME.fullmatch(name):
            raise missing
        plugin = self._found.get(name)
        if plugin is None:
            plugin = self._discover(name)
            if plugin is None:
                raise missing
            answer = plugin.call("Plugin.Activate")
            implements = frozenset(str(i) for i in answer.get("Implements") or ())
            plugin = Plugin(plugin.name, plugin.address, implements, plugin.tls)
            self._found[name] = plugin
        if kind not in plugin.implements:
            raise missing
        return plugin

    def _discover(self, name: str) -> Plugin | None:
        for directory in self._directories.sockets:
            for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                if path.is_socket():
                    return Plugin(name, f"unix://{path}")
        for directory in self._directories.specs:
            for path in (directory / f"{name}.spec", directory / name / f"{name}.spec"):
                if path.is_file():
                    return Plugin(name, path.read_text().strip())
            path = directory / f"{name}.json"
            if path.is_file():
                return _described(name, path)
        return None


def _described(name: str, path: Path) -> Plugin:
    try:
        value = json.loads(path.read_text())
        return Plugin(name, str(value["Addr"]), tls=dict(value.get("TLSConfig") or {}))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Internal(f"cannot read the description of plugin {name} in {path}: {e}") from e
