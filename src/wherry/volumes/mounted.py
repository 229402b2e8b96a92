"""Which tasks have which volumes mounted: the first one mounts, the last one unmounts.

So an NFS server's volume is mounted only while a container uses it. Nothing of this is stored: a new daemon
is told of the tasks that it adopts, and unmounts the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def user_of(container_id: str, destination: str) -> str:
    """The id of a use: a task uses a volume once for each place where it is mounted."""
    return f"{container_id} {destination}"


class _Turn:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0


class Turns:
    """A lock per key, which may be held for long; keys do not wait for each other."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        with self._guard:
            turn = self._turns.setdefault(key, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._guard:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[key]


class Mounts:
    """Safe to use from any thread. A server that does not answer delays only its own volume."""

    def __init__(self, mount: Callable[[str], Path], unmount: Callable[[str], None]) -> None:
        self._mount, self._unmount = mount, unmount
        self._guard = threading.Lock()
        self._users: dict[str, set[str]] = {}
        self._paths: dict[str, Path] = {}
        self._turns = Turns()

    def take(self, volume_id: str, user: str) -> Path:
        """The directory with the volume's data, for ``user`` until it gives it back. Idempotent.

        :raises NotFound: no such volume. :raises WherryError: the driver cannot mount it.
        """
        with self._turns.of(volume_id):
            path = self._paths.get(volume_id) or self._mount(volume_id)
            with self._guard:
                self._paths[volume_id] = path
                self._users.setdefault(volume_id, set()).add(user)
            return path

    def give_back(self, volume_id: str, user: str) -> None:
        """If ``user`` does not use it, nothing happens.

        :raises WherryError: the driver cannot unmount it; the use has ended all the same.
        """
        with self._turns.of(volume_id):
            with self._guard:
                users = self._users.get(volume_id)
                if users is None or user not in users:
                    return
                users.discard(user)
                if users:
                    return
                del self._users[volume_id]
                self._paths.pop(volume_id, None)
            self._unmount(volume_id)

    def give_all_back(self, container_id: str) -> None:
        """As :meth:`give_back`, for every place of a container."""
        prefix = user_of(container_id, "")
        with self._guard:
            held = [
                (v, user) for v, users in self._users.items() for user in users if user.startswith(prefix)
            ]
        for volume_id, user in held:
            self.give_back(volume_id, user)

    def adopt(self, volume_id: str, user: str) -> None:
        """A task that was started by an earlier daemon uses it."""
        with self._guard:
            self._users.setdefault(volume_id, set()).add(user)

    @contextmanager
    def alone(self, volume_id: str) -> Iterator[bool]:
        """Whether nobody uses the volume; while the context is entered, nobody can start to."""
        with self._turns.of(volume_id):
            with self._guard:
                free = volume_id not in self._users
            yield free

    def ids(self) -> set[str]:
        """Volumes that are in use."""
        with self._guard:
            return set(self._users)
