"""Parallel requests: one connection per thread, services in the order of their dependencies."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar

    from wherry.client.api import Api

    T = TypeVar("T")
    Key = TypeVar("Key")


class DaemonSessions:
    """Connections to one daemon, lent to one thread at a time."""

    def __init__(self, make: Callable[[], Api], limit: int) -> None:
        self.limit = limit
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[Api] = []
        self._all: set[Api] = set()

    @contextmanager
    def lend(self) -> Iterator[Api]:
        with self._lock:
            api = self._idle.pop() if self._idle else None
        if api is None:
            api = self._make()
            with self._lock:
                self._all.add(api)
        try:
            yield api
        finally:
            with self._lock:
                self._idle.append(api)

    def close(self) -> None:
        """Close all connections, even those that another thread is reading from."""
        with self._lock:
            everything = list(self._all)
            self._all.clear()
            self._idle.clear()
        for api in everything:
            api.close()


class Failures(WherryError):
    """Several errors, one line each."""

    status = 500

    def __init__(self, errors: list[WherryError]) -> None:
        super().__init__("\n".join(dict.fromkeys(error.message for error in errors)))
        self.errors = errors


class Skipped(WherryError):
    """Skipped because a dependency failed; that failure is reported already."""


def run_all(sessions: DaemonSessions, tasks: Iterable[Callable[[Api], Any]]) -> list[Any]:
    """Run all of them, at most ``sessions.limit`` in parallel. :returns: their results in order.

    :raises WherryError: the errors, after all others have ended.
    """
    listed = list(tasks)
    done = in_order(sessions, dict.fromkeys(range(len(listed)), ()), lambda api, index: listed[index](api))
    return [done[index] for index in range(len(listed))]


def in_order(
    sessions: DaemonSessions, needs: Mapping[Key, Iterable[Key]], work: Callable[[Api, Key], T]
) -> dict[Key, T]:
    """Run ``work`` for every key, after its dependencies; independent keys run in parallel.

    Keys whose dependencies failed are skipped. :raises WherryError: the errors, at the end.
    """
    if len(needs) == 1 or sessions.limit == 1:
        return one_by_one(sessions, needs, work)
    return _Run(sessions, needs, work).finish()


def one_by_one(
    sessions: DaemonSessions, needs: Mapping[Key, Iterable[Key]], work: Callable[[Api, Key], T]
) -> dict[Key, T]:
    """As :func:`in_order`, one after the other in this thread."""
    done: dict[Key, T] = {}
    failed: dict[Key, WherryError] = {}
    left = list(needs)
    while left:
        key = next((k for k in left if not {n for n in needs[k] if n in left and n != k}), left[0])
        left.remove(key)
        if any(need in failed for need in needs[key]):
            failed[key] = Skipped("")
            continue
        try:
            with sessions.lend() as api:
                done[key] = work(api, key)
        except WherryError as e:
            failed[key] = e
    _raise(failed)
    return done


def _raise(failed: Mapping[Any, WherryError]) -> None:
    real = [error for error in failed.values() if not isinstance(error, Skipped)]
    if len(real) == 1:
        raise real[0]
    if real:
        raise Failures(real)


class _Run:
    def __init__(
        self, sessions: DaemonSessions, needs: Mapping[Any, Iterable[Any]], work: Callable[[Api, Any], Any]
    ) -> None:
        self._sessions, self._work = sessions, work
        self._waiting = {
            key: {one for one in wanted if one in needs and one != key} for key, wanted in needs.items()
        }
        self._running: set[Any] = set()
        self._done: dict[Any, Any] = {}
        self._failed: dict[Any, WherryError] = {}
        self._broken: BaseException | None = None
        self._changed = threading.Condition()

    def finish(self) -> dict[Any, Any]:
        with self._changed:
            while self._waiting or self._running:
                self._begin()
                if self._running:
                    self._changed.wait()
                elif self._waiting and not self._skip():
                    break
                if self._broken is not None:
                    raise self._broken
        _raise(self._failed)
        return self._done

    def _begin(self) -> None:
        self._skip()
        for key in [key for key, wanted in self._waiting.items() if wanted <= set(self._done)]:
            if len(self._running) >= self._sessions.limit:
                return
            del self._waiting[key]
            self._running.add(key)
            threading.Thread(target=self._one, args=(key,), daemon=True).start()

    def _skip(self) -> bool:
        """Skip the keys whose dependencies failed. :returns: whether there were any."""
        skipped = False
        while bad := [key for key, wanted in self._waiting.items() if wanted & set(self._failed)]:
            skipped = True
            for key in bad:
                del self._waiting[key]
                self._failed[key] = Skipped("")
        return skipped

    def _one(self, key: Any) -> None:
        try:
            with self._sessions.lend() as api:
                result = self._work(api, key)
        except WherryError as e:
            self._end(key, error=e)
        except BaseException as e:  # the waiting thread raises it
            self._end(key, broken=e)
        else:
            self._end(key, result=result)

    def _end(
        self,
        key: Any,
        *,
        result: Any = None,
        error: WherryError | None = None,
        broken: BaseException | None = None,
    ) -> None:
        with self._changed:
            self._running.discard(key)
            if error is not None:
                self._failed[key] = error
            elif broken is not None:
                self._broken = broken
            else:
                self._done[key] = result
            self._changed.notify_all()
