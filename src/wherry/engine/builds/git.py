"""Repositories for builds: one commit of one, by the program git, told to run nothing and to ask nobody.

The address, the ref and the directory are the Dockerfile's; what is in the repository is its owner's. Neither
becomes an option or a path of git's: addresses and refs are checked against what they may be, hooks and
helpers are off, and the directory is found beneath the checkout without following a link.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from wherry.errors import InvalidArgument, Unavailable
from wherry.linux import syscalls, trees
from wherry.linux.process import CommandFailed, run
from wherry.runtime.task import find_program

_REF = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock$))[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,254}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_ADDRESS = re.compile(r"(?:(?:https?|git|ssh)://|git@)[A-Za-z0-9_][^\s\x00-\x1f\"'\\]*")
_SUBDIR = re.compile(r"[^\x00-\x1f]*")
_TIMEOUT = 600.0
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "transfer.fsckObjects=true",
    "submodule.recurse=false",
    "credential.helper=",
    "advice.detachedHead=false",
)


@dataclass(frozen=True)
class Repository:
    """``ref`` a branch, tag or commit, ``""`` for the default branch; ``subdir`` within it."""

    address: str
    ref: str = ""
    subdir: str = ""


def parse(url: str) -> Repository:
    """``URL[#ref[:subdir]]`` or ``URL?ref=…&subdir=…``. :raises InvalidArgument: something git could
    mistake.
    """
    rest, _, fragment = url.partition("#")
    address, _, query = rest.partition("?")
    ref, _, subdir = fragment.partition(":")
    if query:
        values = parse_qs(query, keep_blank_values=True)
        unknown = set(values) - {"ref", "branch", "tag", "subdir", "commit"}
        if unknown:
            raise InvalidArgument(f"invalid git URL: unknown key {min(unknown)!r}")
        for key in ("ref", "branch", "tag", "commit"):
            ref = values.get(key, [ref])[0]
        subdir = values.get("subdir", [subdir])[0]
    if not _ADDRESS.fullmatch(address):
        raise InvalidArgument(f"invalid git URL: {address[:200]!r}")
    if ref and not _REF.fullmatch(ref):
        raise InvalidArgument(f"invalid git ref: {ref[:200]!r}")
    if not _SUBDIR.fullmatch(subdir) or ".." in subdir.split("/"):
        raise InvalidArgument(f"invalid directory in a git URL: {subdir[:200]!r}")
    return Repository(address, ref, subdir.strip("/"))


def commit_of(repository: Repository) -> str:
    """Which commit is meant now. Blocks. :raises InvalidArgument: the repository has no such ref."""
    if _COMMIT.fullmatch(repository.ref):
        return repository.ref
    wanted = repository.ref or "HEAD"
    names = [wanted] if wanted == "HEAD" else [f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted]
    listed = _git(["ls-remote", "--", repository.address, *names, *(f"{n}^{{}}" for n in names)], cwd="/")
    found: dict[str, str] = {}
    for line in listed.splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    for name in names:
        commit = found.get(f"{name}^{{}}") or found.get(name, "")
        if _COMMIT.fullmatch(commit):
            return commit
    raise InvalidArgument(f"repository does not contain ref {wanted}")


def checkout(repository: Repository, commit: str, directory: Path, *, keep_git: bool) -> Path:
    """Have a commit's files in an empty directory; returns where the wanted ones are. Blocks.

    :raises InvalidArgument: there is no such commit or directory. :raises Unavailable: git is not there.
    """
    _git(["init", "--quiet", "."], cwd=str(directory))
    _git(["remote", "add", "origin", "--", repository.address], cwd=str(directory))
    try:
        _git(["fetch", "--quiet", "--depth=1", "--no-tags", "origin", commit], cwd=str(directory))
    except InvalidArgument:
        # Servers need not give single commits, nor parts of histories.
        _git(
            [
                "fetch",
                "--quiet",
                "--tags",
                "--update-head-ok",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
            ],
            cwd=str(directory),
        )
    _git(["checkout", "--quiet", "--detach", commit], cwd=str(directory))
    if not keep_git:
        trees.remove(directory / ".git")
    if not repository.subdir:
        return directory
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
        os.close(syscalls.openat2(top, repository.subdir, os.O_PATH | os.O_DIRECTORY, resolve=resolve))
    except OSError as e:
        raise InvalidArgument(f"no directory {repository.subdir} in the repository: {e.strerror}") from e
    finally:
        os.close(top)
    return directory / repository.subdir


def _git(arguments: list[str], *, cwd: str) -> str:
    program = find_program(["git"])
    if program is None:
        raise Unavailable("cannot fetch a repository: git is not there (package git)")
    options = [part for one in _CONFIG for part in ("-c", one)]
    env = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        "GIT_CEILING_DIRECTORIES": "/",
    }
    try:
        done = run([program, *options, *arguments], timeout=_TIMEOUT, env=env, cwd=cwd)
    except CommandFailed as e:
        last = e.stderr.strip().splitlines()[-1:] or [e.message]
        raise InvalidArgument(f"cannot fetch the repository: {last[0][:300]}") from e
    return done.stdout.decode("utf-8", "replace")
