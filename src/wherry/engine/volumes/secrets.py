"""Secrets for users and for the containers that use them. Values are written only to a task's own in-memory
file system: never to records, events, errors or layers."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from wherry import threads
from wherry.engine.events import EventBus
from wherry.errors import Conflict, Internal, InvalidArgument
from wherry.linux import mounts
from wherry.linux.users import ID_MAX, User
from wherry.model.container import HostConfig, SecretUse
from wherry.model.mount import Mount
from wherry.runtime.spec import OciMount
from wherry.state.containers import Containers
from wherry.state.secrets import SecretRow as SecretRow
from wherry.volumes.secrets import SecretStore

DIRECTORY = "/run/secrets"
_STAGE = "secrets"
_MODE = 0o444
_USES_MAX = 256


class SecretService:
    def __init__(self, *, secrets: SecretStore, containers: Containers, events: EventBus) -> None:
        self._secrets, self._containers, self._events = secrets, containers, events

    async def create(self, name: str, value: bytes, labels: Mapping[str, str]) -> SecretRow:
        """:raises InvalidArgument, Conflict, Unavailable: see :class:`SecretStore`."""
        row = await threads.short(self._secrets.create, name, value, labels)
        self._tell("create", row)
        return row

    def get(self, wanted: str) -> SecretRow:
        return self._secrets.get(wanted)

    def select(self, filters: Mapping[str, Sequence[str]]) -> list[SecretRow]:
        """``id`` and ``name`` match by prefix, ``names`` exactly, as in Docker."""
        found = []
        for row in self._secrets.all():
            if "id" in filters and not any(row.id.startswith(w) for w in filters["id"]):
                continue
            if "name" in filters and not any(row.name.startswith(w) for w in filters["name"]):
                continue
            if "names" in filters and row.name not in filters["names"]:
                continue
            found.append(row)
        return found

    def relabel(self, wanted: str, version: int, labels: Mapping[str, str]) -> SecretRow:
        row = self._secrets.relabel(wanted, version, labels)
        self._tell("update", row)
        return row

    def remove(self, wanted: str) -> None:
        """:raises Conflict: a container uses it, running or not: it could not start any more."""
        row = self._secrets.get(wanted)
        users = [
            c.name
            for c in self._containers.all()
            if any(use.id == row.id for use in c.record.host_config.secrets or ())
        ]
        if users:
            raise Conflict(f"secret '{row.name}' is in use by the following containers: {', '.join(users)}")
        self._secrets.remove(row.id)
        self._tell("remove", row)

    def _tell(self, action: str, row: SecretRow) -> None:
        self._events.publish("secret", action, row.id, {"name": row.name})


def resolve(host: HostConfig, secrets: SecretStore) -> HostConfig:
    """Resolve uses of secrets: ids of existing secrets, and absolute targets.

    :raises NotFound: no such secret. :raises InvalidArgument: an invalid target or owner.
    """
    if not host.secrets:
        return host
    if len(host.secrets) > _USES_MAX:
        raise InvalidArgument(f"more than {_USES_MAX} secrets for one container")
    uses = [_resolved(use, secrets) for use in host.secrets]
    targets = [use.target for use in uses]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidArgument(f"Duplicate secret target: {target}")
        if any(other.startswith(f"{target}/") for other in targets):
            raise InvalidArgument(f"invalid secret target {target}: another secret has a target below it")
    return replace(host, secrets=uses)


def check_apart(host: HostConfig, destinations: Sequence[str]) -> None:
    """:raises InvalidArgument: another mount has the same target as a secret."""
    for use in host.secrets or ():
        place = DIRECTORY if use.target.startswith(f"{DIRECTORY}/") else use.target
        if place in destinations or use.target in destinations:
            raise InvalidArgument(f"Duplicate mount point: {place}")


def _resolved(use: SecretUse, secrets: SecretStore) -> SecretUse:
    row = secrets.get(use.name or use.id)
    target = use.target or row.name
    parts = target.split("/")
    if "\0" in target or ".." in parts or parts[-1] in ("", "."):
        raise InvalidArgument(f"invalid secret target: {target!r}")
    for who in (use.uid, use.gid):
        if who is not None and not 0 <= who <= ID_MAX:
            raise InvalidArgument(f"invalid owner of secret {row.name}: {who}")
    if use.mode is not None and not 0 <= use.mode <= 0o777:
        raise InvalidArgument(f"invalid mode of secret {row.name}: {use.mode:o}")
    absolute = posixpath.join(DIRECTORY, target)
    path = "/" + posixpath.normpath(absolute).lstrip("/")
    return SecretUse(id=row.id, name=row.name, target=path, uid=use.uid, gid=use.gid, mode=use.mode)


class SecretFiles:
    """Makes the secrets of one task: an in-memory file system below its directory, removed with it."""

    def __init__(self, task: Path, secrets: SecretStore) -> None:
        self._stage = task / _STAGE
        self._secrets = secrets

    def prepare(self, uses: Sequence[SecretUse], user: User, undo: ExitStack) -> list[OciMount]:
        """:param user: the owner of the files, unless the use of the secret sets one.
        :raises NotFound: a secret was removed.
        """
        if not uses:
            return []
        values = [self._secrets.reveal(use.id) for use in uses]
        undo.callback(mounts.unmount, self._stage)
        try:
            self._mount(sum(map(len, values)), len(uses))
            return self._write(uses, values, user)
        except OSError as e:
            raise Internal(f"cannot make a container's secrets: {e.strerror or e}") from e

    def _mount(self, size: int, count: int) -> None:
        self._stage.mkdir(mode=0o700)
        pages = (size >> 12) + 4 * count + 16
        options = ("nosuid", "nodev", "noexec", "mode=0755", f"size={pages << 12}")
        try:  # since Linux 6.4: keeps a secret out of swap, too
            mounts.mount(Mount("tmpfs", "secrets", (*options, "noswap")), self._stage)
        except OSError:
            mounts.mount(Mount("tmpfs", "secrets", options), self._stage)

    def _write(self, uses: Sequence[SecretUse], values: Sequence[bytes], user: User) -> list[OciMount]:
        together = self._stage / "run"
        together.mkdir(mode=0o755)
        made, plain = [], ("nosuid", "nodev", "noexec")
        for number, (use, value) in enumerate(zip(uses, values, strict=True)):
            inside = use.target.removeprefix(f"{DIRECTORY}/")
            if inside != use.target:
                path = together / inside
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            else:
                path = self._stage / str(number)
                made.append(OciMount(use.target, "bind", str(path), ("bind", "ro", "rprivate", *plain)))
            _put(path, value, use, user)
        if any(together.iterdir()):
            made.append(OciMount(DIRECTORY, "bind", str(together), ("bind", "ro", "rprivate", *plain)))
        return made


def _put(path: Path, value: bytes, use: SecretUse, user: User) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(value)
        while view:
            view = view[os.write(fd, view) :]
        uid = user.uid if use.uid is None else use.uid
        gid = user.gid if use.gid is None else use.gid
        os.fchown(fd, uid, gid)
        os.fchmod(fd, _MODE if use.mode is None else use.mode)
    finally:
        os.close(fd)


def unstage(task: Path) -> None:
    """Remove the secrets of an ended task from memory; if there are none, nothing happens."""
    mounts.unmount(task / _STAGE)
