"""Secrets at rest: sealed with AES-256-GCM under a key in a file of its own.

    <root>/secrets.key     32 random bytes, mode 0600, made with the first secret

The id of a secret is authenticated together with its value, so that a value cannot be moved to another row.
If others can read the key file, it is refused, not repaired: then the secrets must be considered known.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux import files
from wherry.state.secrets import SecretRow, Secrets

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")
_NAME_MAX = 64
SIZE_MAX = 500 << 10
"""The limit in bytes; a secret must be smaller (SwarmKit, "MaxSecretSize")."""
_KEY_SIZE, _NONCE_SIZE = 32, 12
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 25


def check_name(name: str) -> None:
    """:raises InvalidArgument: an invalid name, with Docker's message."""
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
        raise InvalidArgument(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character "
            "must be [a-zA-Z0-9]"
        )


class SecretStore:
    """Safe to use from any thread. Only :meth:`reveal` returns values."""

    def __init__(self, root: Path, rows: Secrets) -> None:
        """:param root: the directory of the key file."""
        self._path = root / "secrets.key"
        self._rows = rows
        self._lock = threading.Lock()

    def create(self, name: str, value: bytes, labels: Mapping[str, str]) -> SecretRow:
        """:raises InvalidArgument: an invalid name or size. :raises Conflict: the name is taken.
        :raises Unavailable: the key file's mode is not strict enough."""
        check_name(name)
        if not 0 < len(value) < SIZE_MAX:
            raise InvalidArgument(f"secret data must be larger than 0 and less than {SIZE_MAX} bytes")
        now = time.time_ns()
        secret_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        row = SecretRow(secret_id, name, 1, now, now, dict(labels))
        nonce = secrets.token_bytes(_NONCE_SIZE)
        with self._lock:
            cipher = self._cipher(may_make=True)
        sealed = nonce + cipher.encrypt(nonce, value, secret_id.encode())
        if not self._rows.insert(row, sealed):
            raise Conflict(f"secret {name} already exists")
        return row

    def get(self, wanted: str) -> SecretRow:
        """By id, name or the beginning of an id. :raises NotFound: there is none, or there are several."""
        found = self._rows.find(wanted) if wanted else []
        if len(found) > 1:
            raise InvalidArgument(f"secret {wanted[:80]} is ambiguous ({len(found)} secrets found)")
        if not found:
            raise NotFound(f"secret {wanted[:80]} not found")
        return found[0]

    def all(self) -> list[SecretRow]:
        return self._rows.all()

    def relabel(self, wanted: str, version: int, labels: Mapping[str, str]) -> SecretRow:
        """:raises NotFound: no such secret. :raises Conflict: its version is not ``version`` any more."""
        row = self.get(wanted)
        if not self._rows.relabel(row.id, version, labels, time.time_ns()):
            raise Conflict(f"cannot update secret {row.name}: update out of sequence")
        return self.get(row.id)

    def remove(self, secret_id: str) -> None:
        self._rows.delete(secret_id)

    def reveal(self, secret_id: str) -> bytes:
        """The value.

        :raises NotFound: it was removed. :raises Unavailable: no key file, or one that is not strict.
        :raises Internal: it was sealed with another key, or changed.
        """
        from cryptography.exceptions import InvalidTag

        sealed = self._rows.sealed(secret_id)
        if sealed is None:
            raise NotFound(f"secret {secret_id} not found")
        with self._lock:
            cipher = self._cipher(may_make=False)
        try:
            return cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], secret_id.encode())
        except (InvalidTag, ValueError) as e:
            raise Internal(
                f"cannot open secret {secret_id}: sealed with another key than {self._path}, or changed"
            ) from e

    def _cipher(self, *, may_make: bool) -> AESGCM:
        # The import takes half a dozen megabytes, which a daemon without secrets does not need.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._read_key()
        if key is None:
            if not may_make or self._rows.all():
                raise Unavailable(f"cannot open secrets: {self._path} does not exist")
            key = secrets.token_bytes(_KEY_SIZE)
            try:
                files.write_atomic(self._path, key, mode=0o600)
            except OSError as e:
                raise Internal(f"cannot write {self._path}: {e.strerror}") from e
        return AESGCM(key)

    def _read_key(self) -> bytes | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise Unavailable(f"cannot open secrets: {self._path}: {e.strerror}") from e
        try:
            status = os.fstat(fd)
            problem = _laxness(status)
            if problem:
                raise Unavailable(f"cannot open secrets: {self._path} {problem}")
            key = os.read(fd, _KEY_SIZE + 1)
        finally:
            os.close(fd)
        if len(key) != _KEY_SIZE:
            raise Unavailable(f"cannot open secrets: {self._path} does not hold {_KEY_SIZE} bytes")
        return key


def _laxness(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to the daemon's"
    if stat.S_IMODE(status.st_mode) & 0o177:
        return f"has mode {stat.S_IMODE(status.st_mode):04o}: others may read it; it must be 0600"
    return ""
