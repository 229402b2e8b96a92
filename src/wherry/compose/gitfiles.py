"""Compose files in git repositories: one commit is fetched by the host's ``git``."""

from __future__ import annotations

import os
import re
import shutil

from wherry.client import git
from wherry.compose.finding import NAMES
from wherry.compose.places import ComposeError
from wherry.errors import WherryError

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")


def fetch(name: str, cache: str) -> str:
    """The path of the Compose file in a checkout below ``cache``.

    :raises ComposeError: git cannot fetch it, or there is no such file.
    """
    address, _, rest = name.partition("#")
    ref, _, inside = rest.partition(":")
    if ref and not _REF.fullmatch(ref):
        raise ComposeError(f"{name}: invalid branch, tag or commit {ref!r}")
    if address.startswith("github.com/"):
        address = f"https://{address}"
    commit = ref if _COMMIT.fullmatch(ref) else _resolve(name, address, ref)
    directory = os.path.join(cache, commit)
    if not os.path.isdir(directory):
        _checkout(name, address, commit, directory)
    return _file(name, directory, inside)


def _resolve(name: str, address: str, ref: str) -> str:
    """The commit that a branch, a tag or the default branch is at."""
    wanted = [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"] if ref else ["HEAD"]
    said = _git(name, "ls-remote", "--", address, *wanted)
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in said.splitlines())}
    for one in wanted:
        if _COMMIT.fullmatch(found.get(one, "")):
            return found[one]
    raise ComposeError(
        f"{name}: the repository has no branch or tag {ref!r}" if ref else f"{name}: it is empty"
    )


def _checkout(name: str, address: str, commit: str, directory: str) -> None:
    """Only a whole checkout gets the name ``directory``."""
    import tempfile

    os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
    part = tempfile.mkdtemp(prefix=".fetching-", dir=os.path.dirname(directory))
    try:
        _git(name, "init", "--quiet", part)
        try:
            _git(name, "-C", part, "fetch", "--quiet", "--depth=1", "--no-tags", "--", address, commit)
        except ComposeError:  # not every server gives single commits, or without their history
            _git(name, "-C", part, "fetch", "--quiet", "--", address, "+refs/*:refs/remotes/there/*")
        _git(name, "-C", part, "checkout", "--quiet", "--detach", commit)
        try:
            os.rename(part, directory)
        except OSError:
            if not os.path.isdir(directory):  # another client was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _git(name: str, *arguments: str) -> str:
    try:
        return git.run(arguments)
    except WherryError as e:
        raise ComposeError(f"{name}: {e.message}") from e


def _file(name: str, directory: str, inside: str) -> str:
    """:raises ComposeError: there is none, or it leads out of the checkout."""
    root = os.path.realpath(directory)
    place = os.path.realpath(os.path.join(root, inside))
    if os.path.isdir(place):
        place = next(
            (found for one in NAMES if os.path.isfile(found := os.path.realpath(os.path.join(place, one)))),
            place,
        )
    if place != root and not place.startswith(root + os.sep):
        raise ComposeError(f"{name}: {inside} leads out of the repository")
    if not os.path.isfile(place):
        raise ComposeError(f"{name}: no Compose file at {inside or '.'}")
    return place
