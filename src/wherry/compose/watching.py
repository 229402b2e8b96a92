"""``develop.watch``: changes below the paths of a service, and the resulting actions (Compose specification,
"Compose Develop").

The tree is scanned every half second: names, sizes and times, not contents. The client has no inotify, and
changes are collected for half a second anyway, because editors save in several steps.
"""

from __future__ import annotations

import os
import posixpath

from wherry.model.ignore import Patterns, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Files = dict[str, tuple[int, int, int]]
    """Size, time and inode of each file, by its path relative to the watched directory."""

EVERY = 0.5
"""Seconds between two scans."""
FILES_MAX = 200_000
USUAL = (".git", "**/.git", "**/*~", "**/*.swp", "**/*.swx", "**/.#*", "**/___jb_*", "**/.DS_Store")
"""Files of editors and version control, which are ignored."""


class ChangedFile:
    """One file below a trigger's path: ``path`` here, ``inside`` in the container; ``gone`` when it
    was removed."""

    __slots__ = ("gone", "inside", "path")

    def __init__(self, path: str, inside: str, *, gone: bool) -> None:
        self.path, self.inside, self.gone = path, inside, gone


class Trigger:
    """One entry of ``watch``: its path, its ignore patterns, and the tree at the last scan."""

    def __init__(self, service: str, rule: Any, build: Any) -> None:
        self.service, self.rule = service, rule
        self.path: str = rule["path"]
        self.action: str = rule["action"]
        self.target: str = rule.get("target") or ""
        lines = [*USUAL, *_ignored_by_build(self.path, build), *read("\n".join(rule.get("ignore") or ()))]
        self._ignored = Patterns(lines)
        included = read("\n".join(rule.get("include") or ()))
        self._included = Patterns(included) if included else None
        self._seen = self.look()

    def look(self) -> Files:
        """The current files."""
        found: Files = {}
        if os.path.isfile(self.path):
            _note(found, "", self.path)
            return found
        waiting = [""]
        while waiting and len(found) < FILES_MAX:
            below = waiting.pop()
            try:
                entries = list(os.scandir(os.path.join(self.path, below)))
            except OSError:
                continue  # it was removed meanwhile
            for entry in entries:
                name = posixpath.join(below, entry.name) if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not self._ignored.skippable(name):
                        waiting.append(name)
                elif not self._ignored.excluded(name) and self._wanted(name):
                    _note(found, name, entry.path)
        return found

    def _wanted(self, name: str) -> bool:
        return self._included is None or self._included.excluded(name)

    def everything(self) -> list[ChangedFile]:
        """All files, for ``initial_sync``."""
        return [self._change(name, gone=False) for name in sorted(self._seen)]

    def changes(self) -> list[ChangedFile]:
        """The differences from the last scan."""
        now, before = self.look(), self._seen
        self._seen = now
        found = [self._change(name, gone=False) for name in sorted(now) if before.get(name) != now[name]]
        return found + [self._change(name, gone=True) for name in sorted(before) if name not in now]

    def _change(self, name: str, *, gone: bool) -> ChangedFile:
        path = os.path.join(self.path, name) if name else self.path
        return ChangedFile(path, posixpath.join(self.target, name) if name else self.target, gone=gone)


def _note(found: Files, name: str, path: str) -> None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return
    found[name] = (status.st_size, status.st_mtime_ns, status.st_ino)


def _ignored_by_build(path: str, build: Any) -> Iterable[str]:
    """The patterns of the build's ``.dockerignore``, if the path is the context."""
    context = (build or {}).get("context") or ""
    if not context or os.path.normpath(context) != os.path.normpath(path):
        return ()
    from wherry.client.files import read_file

    try:
        return read(read_file(os.path.join(context, ".dockerignore")).decode("utf-8", "replace"))
    except OSError:
        return ()


def triggers(project: Any, names: Iterable[str]) -> list[Trigger]:
    found: list[Trigger] = []
    for name in names:
        service = project.services[name]
        rules = (service.get("develop") or {}).get("watch") or ()
        found += [Trigger(name, rule, service.get("build")) for rule in rules]
    return found
