"""Find out which daemon to use.

In this order: ``--host`` or ``--context``, ``WHERRY_HOST``, ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current
context of the configuration (:mod:`wherry.client.contexts`), and the local socket.
"""

from __future__ import annotations

import os

from wherry.client import jsonwire
from wherry.client.endpoint import DEFAULT_HOST, DEFAULT_SOCKET, DaemonEndpoint, Tls
from wherry.client.files import read_file
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT = "default"
"""The context that is not stored."""
CANDIDATES = (DEFAULT_SOCKET, "/var/run/wherry/wherry.sock")


def config_dir(environ: Mapping[str, str], given: str = "") -> str:
    """The directory of config.json: ``--config``, ``WHERRY_CONFIG``, ``DOCKER_CONFIG``, ``~/.docker``."""
    named = given or environ.get("WHERRY_CONFIG") or environ.get("DOCKER_CONFIG")
    return named or f"{environ.get('HOME') or '/root'}/.docker"


def read_config(directory: str) -> dict[str, Any]:
    """The client's configuration; empty where there is none.

    :raises InvalidArgument: the file is not a JSON object.
    """
    path = f"{directory}/config.json"
    try:
        raw = read_file(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        decoded = jsonwire.loads(raw) if raw.strip() else {}
    except ValueError as e:
        raise InvalidArgument(f"cannot load config file {path}: {e}") from e
    if not isinstance(decoded, dict):
        raise InvalidArgument(f"cannot load config file {path}: not a JSON object")
    return decoded


class WantedDaemon:
    """The flags that select the daemon; empty strings and None mean "not set"."""

    __slots__ = ("context", "host", "tls", "tls_verify", "tlscacert", "tlscert", "tlskey")

    def __init__(
        self,
        *,
        host: str = "",
        context: str = "",
        tls: bool = False,
        tls_verify: bool = False,
        tlscacert: str = "",
        tlscert: str = "",
        tlskey: str = "",
    ) -> None:
        self.host, self.context = host, context
        self.tls, self.tls_verify = tls, tls_verify
        self.tlscacert, self.tlscert, self.tlskey = tlscacert, tlscert, tlskey

    def in_context(self, name: str) -> WantedDaemon:
        """The same with another context."""
        tls = {one: getattr(self, one) for one in self.__slots__ if one.startswith("tls")}
        return WantedDaemon(host=self.host, context=name, **tls)


def host_variable(environ: Mapping[str, str]) -> str:
    """The environment variable that names a daemon and takes precedence over the current context; empty if
    there is none."""
    return next((name for name in ("WHERRY_HOST", "DOCKER_HOST") if environ.get(name)), "")


def current(wanted: WantedDaemon, environ: Mapping[str, str], directory: str) -> str:
    """The name of the context to use, whether it exists or not.

    :raises InvalidArgument: ``--host`` together with ``--context``.
    """
    if wanted.host and wanted.context:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    if wanted.context:
        return wanted.context
    if wanted.host or host_variable(environ):
        return DEFAULT
    named = environ.get("DOCKER_CONTEXT") or read_config(directory).get("currentContext")
    return str(named or DEFAULT)


def find(wanted: WantedDaemon, environ: Mapping[str, str], directory: str) -> tuple[DaemonEndpoint, bool]:
    """The daemon's endpoint, and whether it is the default one, because nothing selects another.

    The context ``default`` means the environment's daemon, else the local socket.

    :raises InvalidArgument: ``--host`` together with ``--context``, or a malformed address.
    :raises NotFound: no such context.
    """
    name = current(wanted, environ, directory)
    if name != DEFAULT:
        return _from_context(name, directory), False
    host = wanted.host or environ.get(host_variable(environ)) or ""
    if host:
        return DaemonEndpoint(host, _tls(wanted, environ, directory)), False
    for path in CANDIDATES:
        if os.path.exists(path):
            return DaemonEndpoint(f"unix://{path}"), True
    return DaemonEndpoint(DEFAULT_HOST), True


def _tls(wanted: WantedDaemon, environ: Mapping[str, str], directory: str) -> Tls | None:
    verify = wanted.tls_verify or bool(environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or wanted.tls or environ.get("DOCKER_TLS")):
        return None
    place = environ.get("DOCKER_CERT_PATH") or directory

    def choose(given: str, name: str) -> str:
        path = given or f"{place}/{name}"
        return path if given or os.path.exists(path) else ""

    return Tls(
        ca=choose(wanted.tlscacert, "ca.pem"),
        cert=choose(wanted.tlscert, "cert.pem"),
        key=choose(wanted.tlskey, "key.pem"),
        verify=verify,
    )


def _from_context(name: str, directory: str) -> DaemonEndpoint:
    from wherry.client.contexts import ContextDirectory

    try:
        return ContextDirectory(directory).endpoint(name)
    except (InvalidArgument, NotFound) as e:
        raise type(e)(f"Failed to initialize: unable to resolve docker endpoint: {e.message}") from e
