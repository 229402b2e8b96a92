"""Contexts: named daemons, kept where Docker's client keeps them and in its format, so that both share them.

    <config>/config.json                                 currentContext
    <config>/contexts/meta/<id>/meta.json                {"Name", "Metadata": {"Description"},
                                                          "Endpoints": {"docker": {"Host", "SkipTLSVerify"}}}
    <config>/contexts/tls/<id>/<endpoint>/<name>.pem     ca, cert and key; mode 0600 below 0700

``<id>`` is the SHA-256 of the name in hexadecimal. A file is renamed to its name when it is complete;
``meta.json`` is written last and removed first, so that a context never exists without its certificates. Data
that other programs keep in a context (other endpoints, members of its metadata) is preserved.
"""

from __future__ import annotations

import os

from wherry.client import jsonwire
from wherry.client.endpoint import DaemonEndpoint, Tls
from wherry.client.files import read_file, write_all
from wherry.errors import Conflict, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Object = dict[str, Any]
    Material = dict[str, dict[str, bytes]]
    """TLS files by endpoint, then by name (``ca.pem``)."""

DOCKER = "docker"
RESERVED = ("default", "all")
"""In commands that ask several daemons, ``all`` means every context."""
FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
FURTHER = FIRST | frozenset("_.+-")
PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"
FILE_SIZE_MAX = 1 << 20
TLS_KEYS = ("ca", "cert", "key")


def check_name(name: str) -> None:
    """:raises InvalidArgument: not a valid name for a new context; in Docker's words."""
    if not name:
        raise InvalidArgument("context name cannot be empty")
    if name in RESERVED:
        raise InvalidArgument(f'"{name}" is a reserved context name')
    if len(name) < 2 or name[0] not in FIRST or not FURTHER.issuperset(name):
        raise InvalidArgument(
            f'context name "{name}" is invalid, names are validated against regexp "{PATTERN}"'
        )


def check_meta(meta: Any) -> Object:
    """A context's description as read, with the types of its members checked.

    :raises InvalidArgument: it is malformed.
    """
    if not isinstance(meta, dict):
        raise InvalidArgument("invalid context: its metadata is not a JSON object")
    for name in ("Metadata", "Endpoints"):
        if not isinstance(meta.get(name) or {}, dict):
            raise InvalidArgument(f"invalid context: {name} is not a JSON object")
    for name, endpoint in (meta.get("Endpoints") or {}).items():
        if not isinstance(endpoint, dict):
            raise InvalidArgument(f"invalid context: the endpoint {name!r} is not a JSON object")
    host = ((meta.get("Endpoints") or {}).get(DOCKER) or {}).get("Host")
    if not isinstance(host or "", str):
        raise InvalidArgument("invalid context: the host of its docker endpoint is not text")
    return meta


def description(meta: Object) -> str:
    return str((meta.get("Metadata") or {}).get("Description") or "")


def docker_endpoint(meta: Object) -> Object:
    """:raises InvalidArgument: the context has no docker endpoint."""
    endpoint = (meta.get("Endpoints") or {}).get(DOCKER)
    if endpoint is None:
        raise InvalidArgument("cannot find docker endpoint in context")
    found: Object = endpoint
    return found


class ContextDirectory:
    """The contexts below a configuration directory."""

    def __init__(self, directory: str) -> None:
        self._place = f"{directory}/contexts"

    def meta_directory(self, name: str) -> str:
        return f"{self._place}/meta/{_id(name)}"

    def tls_directory(self, name: str) -> str:
        return f"{self._place}/tls/{_id(name)}"

    def names(self, on_damage: Callable[[str], None] | None = None) -> list[str]:
        """The names of all contexts, in no order. ``on_damage`` is called for contexts that
        cannot be read."""
        found = []
        for entry in _entries(f"{self._place}/meta"):
            path = f"{self._place}/meta/{entry}/meta.json"
            try:
                name = str(check_meta(jsonwire.loads(read_file(path))).get("Name") or "")
                if _id(name) != entry:
                    raise ValueError("it is stored under another context's name")
            except FileNotFoundError:
                continue  # removed, or not complete yet
            except (OSError, ValueError, InvalidArgument) as e:
                if on_damage is not None:
                    on_damage(f"cannot read context: {path}: {e}")
            else:
                found.append(name)
        return found

    def exists(self, name: str) -> bool:
        return os.path.exists(f"{self.meta_directory(name)}/meta.json")

    def read(self, name: str) -> Object:
        """A context's ``meta.json``.

        :raises NotFound: no such context.
        :raises InvalidArgument: it is damaged.
        """
        path = f"{self.meta_directory(name)}/meta.json"
        try:
            return check_meta(jsonwire.loads(read_file(path)))
        except OSError as e:
            reason = (e.strerror or "").lower()
            raise NotFound(f'context "{name}": context not found: open {path}: {reason}') from e
        except (ValueError, InvalidArgument) as e:
            raise InvalidArgument(f'context "{name}": {path}: {e}') from e

    def tls_names(self, name: str) -> dict[str, list[str]]:
        """The names of a context's TLS files by endpoint."""
        place = self.tls_directory(name)
        found = {endpoint: sorted(_entries(f"{place}/{endpoint}")) for endpoint in sorted(_entries(place))}
        return {endpoint: files for endpoint, files in found.items() if files}

    def tls(self, name: str) -> Material:
        place = self.tls_directory(name)
        return {
            endpoint: {file: read_file(f"{place}/{endpoint}/{file}") for file in files}
            for endpoint, files in self.tls_names(name).items()
        }

    def endpoint(self, name: str) -> DaemonEndpoint:
        """The endpoint of a context's daemon.

        :raises NotFound: no such context.
        :raises InvalidArgument: it is damaged, or has no usable address.
        """
        meta = docker_endpoint(self.read(name))
        place = f"{self.tls_directory(name)}/{DOCKER}"
        skip = bool(meta.get("SkipTLSVerify"))
        files = {key: f"{place}/{key}.pem" for key in TLS_KEYS if os.path.exists(f"{place}/{key}.pem")}
        tls = Tls(verify=not skip, **files) if files or skip else None
        return DaemonEndpoint(str(meta.get("Host") or ""), tls, context=name)

    def save(self, name: str, meta: Object, tls: Material, *, new: bool) -> None:
        """Write a context, its certificates first.

        :raises Conflict: ``new``, and there is one of this name already.
        """
        if new and self.exists(name):
            raise Conflict(f'context "{name}" already exists')
        self._write_tls(name, tls)
        place = self.meta_directory(name)
        os.makedirs(place, mode=0o755, exist_ok=True)
        partial = f"{place}/.meta.json-{os.getpid()}"
        _write(partial, jsonwire.dumps({**meta, "Name": name}, ascii_only=False).encode(), 0o644)
        try:
            if new:
                os.link(partial, f"{place}/meta.json")
                os.unlink(partial)
            else:
                os.rename(partial, f"{place}/meta.json")
        except OSError as e:
            os.unlink(partial)
            if isinstance(e, FileExistsError):
                raise Conflict(f'context "{name}" already exists') from e
            raise

    def _write_tls(self, name: str, tls: Material) -> None:
        from shutil import rmtree

        place = self.tls_directory(name)
        if not tls:
            rmtree(place, ignore_errors=True)
            return
        partial = f"{self._place}/tls/.{_id(name)}-{os.getpid()}"
        os.makedirs(f"{self._place}/tls", exist_ok=True)
        os.chmod(f"{self._place}/tls", 0o700)
        try:
            os.mkdir(partial, 0o700)
            for endpoint, files in tls.items():
                os.mkdir(f"{partial}/{endpoint}", 0o700)
                for file, content in files.items():
                    _write(f"{partial}/{endpoint}/{file}", content, 0o600)
            rmtree(place, ignore_errors=True)
            os.rename(partial, place)
        except BaseException:
            rmtree(partial, ignore_errors=True)
            raise

    def remove(self, name: str) -> None:
        """Remove a context, if it exists."""
        from shutil import rmtree

        for place in (self.meta_directory(name), self.tls_directory(name)):
            rmtree(place, ignore_errors=True)
            if os.path.lexists(place):
                raise Conflict(f'cannot remove context "{name}": {place} cannot be removed')


def _id(name: str) -> str:
    from hashlib import sha256

    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _entries(directory: str) -> list[str]:
    try:
        return [entry for entry in os.listdir(directory) if not entry.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write(path: str, content: bytes, mode: int) -> None:
    """Write a new file; if that fails, remove it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def from_settings(settings: Mapping[str, str]) -> tuple[Object, dict[str, bytes]]:
    """A docker endpoint, and its TLS files, from ``host``, ``ca``, ``cert``, ``key``, ``skip-tls-verify``.

    :raises InvalidArgument: an unknown or unusable setting; in Docker's words.
    """
    for key in settings:
        if key not in ("host", "from", "skip-tls-verify", *TLS_KEYS):
            raise InvalidArgument(f"unrecognized config key: {key}")
    skip = False
    if "skip-tls-verify" in settings:
        text = settings["skip-tls-verify"]
        if text not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
            raise InvalidArgument(f'skip-tls-verify: parsing "{text}": invalid syntax')
        skip = text[0] in "1tT"
    files = {f"{key}.pem": _read_pem(settings[key]) for key in TLS_KEYS if settings.get(key)}
    host = settings.get("host", "")
    if host:
        check_host(host)
    if files:
        _check_tls(settings)
    return ({"Host": host} if host else {}) | {"SkipTLSVerify": skip}, files


def _read_pem(path: str) -> bytes:
    try:
        content = read_file(path)
    except OSError as e:
        raise InvalidArgument(f"open {path}: {(e.strerror or '').lower()}") from e
    if len(content) > FILE_SIZE_MAX:
        raise InvalidArgument(f"cannot read {path}: larger than 1 MiB")
    return content


def _check_tls(settings: Mapping[str, str]) -> None:
    """:raises InvalidArgument: certificates or a key that TLS cannot use."""
    import ssl

    ca, cert, key = (settings.get(name, "") for name in TLS_KEYS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    what = "ca.pem"
    try:
        if ca:
            context.load_verify_locations(cafile=ca)
        what = "cert.pem and key.pem"
        if cert and key:
            context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as e:
        raise InvalidArgument(
            f"invalid docker endpoint options: failed to retrieve context tls info: {what} seems invalid: {e}"
        ) from e


def check_host(host: str) -> None:
    """:raises InvalidArgument: not a daemon's address."""
    from wherry.client.ssh import SshTarget

    scheme, separator, rest = host.partition("://")
    known = separator and scheme in ("unix", "tcp", "ssh", "http", "https")
    if not known or not (rest or scheme == "ssh"):
        raise InvalidArgument(
            f"unable to apply docker endpoint options: unable to parse docker host `{host}`"
        )
    if scheme == "ssh":
        try:
            SshTarget(rest)
        except InvalidArgument as e:
            raise InvalidArgument(
                f"invalid docker endpoint options: ssh host connection is not valid: {e.message}"
            ) from e
    else:
        DaemonEndpoint(host)


def use(directory: str, name: str) -> None:
    """Make a context the current one; ``default`` removes the setting. The rest of the file is kept.

    If the file is a symbolic link, it stays one; its mode is kept.

    :raises InvalidArgument: config.json exists but is not a JSON object.
    :raises OSError: it cannot be read or written.
    """
    path = os.path.realpath(f"{directory}/config.json")
    mode = 0o600
    config: Object = {}
    try:
        raw = read_file(path)
        mode = os.stat(path).st_mode & 0o777
        config = jsonwire.loads(raw) if raw.strip() else {}
    except FileNotFoundError:
        pass
    except ValueError as e:
        raise InvalidArgument(f"cannot load config file {path}: {e}") from e
    if not isinstance(config, dict):
        raise InvalidArgument(f"cannot load config file {path}: not a JSON object")
    wanted = "" if name == "default" else name
    if (config.get("currentContext") or "") == wanted:
        return
    config.pop("currentContext", None)
    if wanted:
        config["currentContext"] = wanted
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    partial = f"{path}.{os.getpid()}"
    _write(partial, jsonwire.indented(config, "\t").encode(), 0o600)
    try:
        os.chmod(partial, mode)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
