"""Credentials for registries, where Docker's client keeps them.

    <config>/config.json    auths         {"host": {"auth": base64 of "user:password"}}, or {"identitytoken"}
                            credsStore    the name of a helper for all registries
                            credHelpers   {"host": name of a helper}

A helper is the program ``docker-credential-NAME``: a verb as its argument, a question on stdin, an answer on
stdout (docker-credential-helpers, "Development"). Docker Hub's key is ``https://index.docker.io/v1/``.
"""

from __future__ import annotations

import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from wherry.client import discovery, jsonwire
from wherry.client.files import write_all
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

HUB = "https://index.docker.io/v1/"
HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
HELPER_TIMEOUT = 60.0
_TOKEN_USER = "<token>"
_MISSING = "credentials not found in native keychain"


class Auth:
    """Credentials for one registry; ``server`` is the key under which they are stored."""

    __slots__ = ("identity_token", "password", "server", "username")

    def __init__(self, server: str, username: str = "", password: str = "", identity_token: str = "") -> None:
        self.server, self.username, self.password = server, username, password
        self.identity_token = identity_token

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token)

    @property
    def wire(self) -> Object:
        """As the API's AuthConfig."""
        found = {
            "username": self.username,
            "password": self.password,
            "identitytoken": self.identity_token,
            "serveraddress": self.server,
        }
        return {name: value for name, value in found.items() if value}

    @property
    def header(self) -> str:
        """The value of ``X-Registry-Auth``."""
        return _urlsafe(jsonwire.dumps(self.wire if self else {}))


def _urlsafe(text: str) -> str:
    packed = b2a_base64(text.encode(), newline=False).decode()
    return packed.replace("+", "-").replace("/", "_")


def key_for(host: str) -> str:
    """The key of a registry: its host, except for Docker Hub."""
    return HUB if not host or host in HUB_HOSTS else host


def host_of(key: str) -> str:
    """The host of a key, however it was written."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0].lower()
    return "docker.io" if host in HUB_HOSTS else host


class CredentialStore:
    """The credentials in one configuration directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def _config(self) -> Object:
        return discovery.read_config(self._directory)

    def helper(self, key: str) -> str:
        """The name of the helper that stores a registry's credentials; empty if the file does."""
        config = self._config()
        helpers = config.get("credHelpers")
        if isinstance(helpers, dict):
            for name, program in helpers.items():
                if host_of(str(name)) == host_of(key):
                    return str(program)
        return str(config.get("credsStore") or "")

    def get(self, key: str) -> Auth:
        """The credentials for a registry; empty ones if there are none.

        :raises InvalidArgument: the file or the helper's answer is malformed.
        """
        if helper := self.helper(key):
            return self._from_helper(helper, key)
        auths = self._config().get("auths")
        if isinstance(auths, dict):
            for name in sorted(auths, key=lambda name: name != key):
                if host_of(str(name)) == host_of(key) and isinstance(auths[name], dict):
                    return self._from_file(key, auths[name])
        return Auth(key)

    def _from_file(self, key: str, entry: Object) -> Auth:
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                text = a2b_base64(str(entry["auth"]).encode()).decode()
            except (Base64Error, UnicodeError) as e:
                raise InvalidArgument(f"cannot read the credentials for {key} in config.json: {e}") from e
            username, colon, password = text.partition(":")
            if not colon:
                raise InvalidArgument(f"cannot read the credentials for {key} in config.json: no password")
        return Auth(key, username, password.rstrip("\0"), str(entry.get("identitytoken") or ""))

    def _from_helper(self, helper: str, key: str) -> Auth:
        code, out = run_helper(helper, "get", key)
        if code != 0:
            if _MISSING in out:
                return Auth(key)
            raise InvalidArgument(f"error getting credentials - err: exit status {code}, out: `{out}`")
        try:
            answer = jsonwire.loads(out)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError) as e:
            raise InvalidArgument(f"cannot read what docker-credential-{helper} answers: {e}") from e
        if username == _TOKEN_USER:
            return Auth(key, identity_token=secret)
        return Auth(key, username, secret)

    def put(self, auth: Auth) -> str:
        """Store credentials. :returns: the path of the file that now contains them unencrypted, or an empty
        text."""
        helper = self.helper(auth.server)
        if helper:
            question = {
                "ServerURL": auth.server,
                "Username": _TOKEN_USER if auth.identity_token else auth.username,
                "Secret": auth.identity_token or auth.password,
            }
            code, out = run_helper(helper, "store", jsonwire.dumps(question))
            if code != 0:
                raise InvalidArgument(f"error storing credentials - err: exit status {code}, out: `{out}`")
        entry: Object = {}
        if not helper:
            plain = f"{auth.username}:{'' if auth.identity_token else auth.password}"
            entry["auth"] = b2a_base64(plain.encode(), newline=False).decode()
            if auth.identity_token:
                entry["identitytoken"] = auth.identity_token
        self._change(auth.server, entry)
        return "" if helper else f"{self._directory}/config.json"

    def remove(self, key: str) -> bool:
        """Remove a registry's credentials. :returns: whether there were any."""
        found = False
        if helper := self.helper(key):
            found = bool(self._from_helper(helper, key))
            code, out = run_helper(helper, "erase", key)
            if code != 0 and _MISSING not in out:
                raise InvalidArgument(f"error erasing credentials - err: exit status {code}, out: `{out}`")
        return self._change(key, None) or found

    def known(self) -> list[str]:
        """The keys in the file."""
        auths = self._config().get("auths")
        return sorted(map(str, auths)) if isinstance(auths, dict) else []

    def _change(self, key: str, entry: Object | None) -> bool:
        """Set or remove one registry's entry; everything else in the file stays as it is."""
        config = self._config()
        known = config.get("auths")
        auths = dict(known) if isinstance(known, dict) else {}
        same = [name for name in auths if host_of(str(name)) == host_of(key)]
        if entry is None and not same:
            return False
        for name in same:
            del auths[name]
        if entry is not None:
            auths[key] = entry
        config["auths"] = auths
        _write(f"{self._directory}/config.json", config)
        return bool(same)


def _write(path: str, config: Object) -> None:
    """Replace the file atomically; if it is a symbolic link, replace its target."""
    import json

    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, json.dumps(config, indent="\t", ensure_ascii=False).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def run_helper(name: str, verb: str, question: str) -> tuple[int, str]:
    """Ask ``docker-credential-NAME``; its exit status and what it printed.

    :raises NotFound: it is not in PATH. :raises InvalidArgument: the name is invalid, or the helper takes too
        long.
    """
    import subprocess

    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise InvalidArgument(f"invalid credential helper {name!r}")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, verb],
            input=question.encode(),
            stdout=subprocess.PIPE,
            timeout=HELPER_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as e:
        raise NotFound(f"error getting credentials - err: exec: {program!r}: not found in $PATH") from e
    except subprocess.TimeoutExpired as e:
        raise InvalidArgument(f"{program} {verb} does not answer within {HELPER_TIMEOUT:g} s") from e
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def header_for(directory: str, image: str) -> dict[str, str]:
    """``X-Registry-Auth`` for an image's registry, if there are credentials."""
    from wherry.model import reference

    auth = CredentialStore(directory).get(key_for(reference.parse(image).domain))
    return {"X-Registry-Auth": auth.header} if auth else {}


def headers_for_all(directory: str, images: list[str]) -> dict[str, str]:
    """``X-Registry-Config`` for the registries of several images."""
    from wherry.model import reference

    store, known = CredentialStore(directory), {}
    for image in images:
        key = key_for(reference.parse(image).domain)
        if auth := store.get(key):
            known[key] = auth.wire
    return {"X-Registry-Config": _urlsafe(jsonwire.dumps(known))} if known else {}
