"""Which daemon is meant.

In this order: ``--host`` or ``--context``, ``WHERRY_HOST``, ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current
context of the configuration, and the local socket. Contexts are read where Docker's client keeps them:

    <config>/config.json                            currentContext
    <config>/contexts/meta/<sha256 of name>/meta.json
    <config>/contexts/tls/<sha256 of name>/docker/{ca,cert,key}.pem
"""

from __future__ import annotations

import os

from wherry.client import jsonwire
from wherry.client.files import read_file
from wherry.client.transport import DEFAULT_HOST, DEFAULT_SOCKET, Endpoint, Tls
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

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


class Wanted:
    """What the command line says about the daemon; empty strings and None mean "not said"."""

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


def find(wanted: Wanted, environ: Mapping[str, str], directory: str) -> tuple[Endpoint, bool]:
    """The daemon's endpoint, and whether it is the default one that nobody asked for by name.

    :raises InvalidArgument: ``--host`` together with ``--context``, or a malformed address.
    :raises NotFound: no such context.
    """
    if wanted.host and wanted.context:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    host = wanted.host
    if not host and not wanted.context:
        host = environ.get("WHERRY_HOST") or environ.get("DOCKER_HOST") or ""
    if host:
        return Endpoint(host, _tls(wanted, environ, directory)), False
    name = wanted.context or environ.get("DOCKER_CONTEXT") or ""
    if not name:
        name = str(read_config(directory).get("currentContext") or "")
    if name and name != "default":
        return _from_context(name, directory), False
    for path in CANDIDATES:
        if os.path.exists(path):
            return Endpoint(f"unix://{path}"), True
    return Endpoint(DEFAULT_HOST), True


def _tls(wanted: Wanted, environ: Mapping[str, str], directory: str) -> Tls | None:
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


def _from_context(name: str, directory: str) -> Endpoint:
    from hashlib import sha256

    key = sha256(name.encode()).hexdigest()
    path = f"{directory}/contexts/meta/{key}/meta.json"
    try:
        meta = jsonwire.loads(read_file(path))
        endpoint = meta["Endpoints"]["docker"]
        host = str(endpoint["Host"])
    except OSError as e:
        raise NotFound(
            f'Failed to initialize: unable to resolve docker endpoint: context "{name}": '
            f"context not found: open {path}: {(e.strerror or '').lower()}"
        ) from e
    except (ValueError, KeyError, TypeError) as e:
        raise InvalidArgument(
            f'Failed to initialize: unable to resolve docker endpoint: context "{name}": '
            f"{path} is not a context with a docker endpoint"
        ) from e
    place = f"{directory}/contexts/tls/{key}/docker"
    skip = bool(endpoint.get("SkipTLSVerify"))
    files = {n: f"{place}/{n}.pem" for n in ("ca", "cert", "key") if os.path.exists(f"{place}/{n}.pem")}
    tls = Tls(verify=not skip, **files) if files or skip else None
    return Endpoint(host, tls, context=name)
