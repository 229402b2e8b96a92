"""The daemon, with a note of every wait: requests, jobs of threads, commits and syncs of the database.

    daemon.py FILE [FLAG ...]       as wherryd FLAG ...

A note is a line of JSON in FILE: what, a word about it, then times of CLOCK_MONOTONIC in seconds. A job of
a thread has three: asked for, begun, done; a hop is the loop's wait for one: from its call until it went on
with the result.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

_now = time.monotonic


class Notes:
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, kind: str, word: str, *times: float) -> None:
        os.write(self._fd, (json.dumps([kind, word, *times]) + "\n").encode())

    def around(self, owner: Any, name: str, kind: str) -> None:
        """Note every call of a function of a class."""
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def noted(*arguments: Any, **keywords: Any) -> Any:
            began = _now()
            try:
                return original(*arguments, **keywords)
            finally:
                self.add(kind, name, began, _now())

        setattr(owner, name, noted)


def install(notes: Notes) -> None:
    from wherry import threads
    from wherry.api.server import ApiServer
    from wherry.linux import process
    from wherry.runtime import monitor, task
    from wherry.state.database import Database

    _note_jobs(notes, threads.Pool)
    _note_requests(notes, ApiServer)
    _note_commits(notes, Database)
    for name in ("create", "start", "delete"):
        notes.around(task.Runtime, name, "runtime")
    for name in ("prepare", "go"):
        notes.around(monitor.PendingExec, name, "runtime")
    notes.around(monitor.Monitor, "go", "runtime")
    notes.around(process, "run", "program")


def _note_jobs(notes: Notes, pool_class: Any) -> None:
    submit, call = pool_class.submit, pool_class.__call__

    def noted_submit(self: Any, work: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
        asked = _now()

        def timed() -> Any:
            began, cpu = _now(), time.thread_time()
            try:
                return work(*arguments, **keywords)
            finally:
                ran = (time.thread_time() - cpu) * 1e3
                what = _word(arguments[0] if arguments else work)
                notes.add("job", f"{self.name} {what}, {ran:.1f} ms of processor", asked, began, _now())

        return submit(self, timed)

    async def noted_call(self: Any, work: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
        asked = _now()
        try:
            return await call(self, work, *arguments, **keywords)
        finally:
            notes.add("hop", f"{self.name} {_word(work)}", asked, _now())

    pool_class.submit, pool_class.__call__ = noted_submit, noted_call


def _word(work: Any) -> str:
    work = getattr(work, "func", work)
    return str(getattr(work, "__qualname__", work)).replace(".<locals>", "").replace("<lambda>", "λ")


def _note_requests(notes: Notes, server: Any) -> None:
    answer = server._answer

    async def noted(self: Any, request: Any) -> Any:
        began = _now()
        try:
            return await answer(self, request)
        finally:
            notes.add("request", f"{request.method} {request.path}", began, _now())

    server._answer = noted


def _note_commits(notes: Notes, database: Any) -> None:
    """A commit is a change of ``total_changes`` at the end of an outermost statement or transaction."""
    execute, transaction = database.execute, database.transaction

    def noted_execute(self: Any, sql: str, parameters: Any = ()) -> Any:
        began = _now()
        try:
            return execute(self, sql, parameters)
        finally:
            if not self._depth:
                notes.add("commit", " ".join(sql.split()[:3]), began, _now())

    class Noted:
        def __init__(self, database: Any, keywords: Any) -> None:
            self._outermost, self._inner = not database._depth, transaction(database, **keywords)

        def __enter__(self) -> Any:
            self._began = _now()
            return self._inner.__enter__()

        def __exit__(self, *error: Any) -> Any:
            try:
                return self._inner.__exit__(*error)
            finally:
                if self._outermost:
                    notes.add("commit", "transaction", self._began, _now())

    database.execute = noted_execute
    database.transaction = lambda self, **keywords: Noted(self, keywords)
    notes.around(database, "settle", "settle")


if __name__ == "__main__":
    from wherry.daemon.entry import imported

    daemon: Any = imported()
    install(Notes(sys.argv[1]))
    sys.exit(daemon.main(sys.argv[2:]))
