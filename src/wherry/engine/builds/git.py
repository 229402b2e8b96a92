"""Git repositories for builds: one commit of one repository, fetched by git without hooks or prompts.

The address, the ref and the directory come from the Dockerfile; the content comes from the repository's
owner. None of it can become an option or a path for git: addresses and refs are checked against strict
patterns, hooks and helpers are off, and the directory is resolved beneath the checkout without following
links.

git itself would follow redirects and resolve host names, and could then be led where nobody may ask. So the
address is determined first, by the rules of :mod:`wherry.registry.addresses`, and git connects to that one
and to no other:

http, https   the address is given to curl beside the name, and redirects are not followed
ssh, git@     the address is ssh's HostName; the host's key is still looked up by its name
git           the address replaces the name in the URL; the server is still told the name
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from yarl import URL

from wherry.errors import InvalidArgument, Unavailable
from wherry.linux import syscalls, trees
from wherry.linux.process import CommandFailed, run
from wherry.registry.download import pinned, redirected, shown
from wherry.runtime.task import find_program

_REF = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock$))[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,254}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_ADDRESS = re.compile(r"(?:(?:https?|git|ssh)://|git@)[A-Za-z0-9_][^\s\x00-\x1f\"'\\]*")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]"
_HOST = re.compile(
    rf"(?P<scheme>ssh|git)://(?:[^/@\s]*@)?(?P<host>{_NAME})(?::(?P<port>\d{{1,5}}))?/.*"
    rf"|git@(?P<scp_host>{_NAME}):.*",
    re.ASCII,
)
_PORTS = {"ssh": 22, "git": 9418}
_SSH = "ssh -oBatchMode=yes"
_SUBDIR = re.compile(r"[^\x00-\x1f]*")
_TIMEOUT = 600.0
_ASKED = "/info/refs?service=git-upload-pack"
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
class GitRemote:
    """``ref``: a branch, tag or commit; ``""`` is the default branch. ``subdir``: a directory in it."""

    address: str
    ref: str = ""
    subdir: str = ""


def parse(url: str) -> GitRemote:
    """``URL[#ref[:subdir]]`` or ``URL?ref=…&subdir=…``. :raises InvalidArgument: git could misunderstand
    it.
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
    return GitRemote(address, ref, subdir.strip("/"))


@dataclass(frozen=True)
class Located:
    """A repository, and the options and environment that make git connect only to its checked address."""

    repository: GitRemote
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


async def locate(repository: GitRemote) -> Located:
    """Follow redirects to the final address.

    :raises Forbidden: a forbidden address, or a redirect to one.
    :raises Unavailable: the server does not answer.
    """
    address = repository.address
    if not address.startswith(("http://", "https://")):
        return await _located_by_name(repository)
    try:
        base = URL(address.rstrip("/"))
    except ValueError as e:
        raise InvalidArgument(f"invalid git URL: {address[:200]!r}") from e
    found = await redirected(f"{base}{_ASKED}")
    if not str(found.url).endswith(_ASKED):
        raise InvalidArgument(f"cannot fetch the repository: it redirects to {shown(str(found.url))}")
    addresses = ",".join(f"[{a}]" if ":" in a else a for a in found.addresses)
    final = URL(str(found.url).removesuffix(_ASKED))
    options = [
        "http.followRedirects=false",
        f"http.curloptResolve={final.host}:{final.port}:{addresses}",
    ]
    if final != base.with_user(None):
        if final.origin() == base.origin():
            final = final.with_user(base.user).with_password(base.password)
        options.append(f"url.{final}.insteadOf={address}")
    return Located(repository, tuple(options))


async def _located_by_name(repository: GitRemote) -> Located:
    """Of a repository that git reaches by ssh or its own protocol."""
    match = _HOST.fullmatch(repository.address)
    if match is None:
        raise InvalidArgument(f"invalid git URL: {repository.address[:200]!r}")
    scheme = match["scheme"] or "ssh"
    named = match["host"] or match["scp_host"]
    port = int(match["port"] or _PORTS[scheme])
    address = await pinned(named.strip("[]"), port)
    if scheme == "ssh":
        # ssh writes a port of its own beside the name in known_hosts, but not beside an alias.
        alias = named.strip("[]") if port == _PORTS["ssh"] else f"[{named.strip('[]')}]:{port}"
        words = (f"-oHostName={address}", f"-oHostKeyAlias={alias}", "-oCheckHostIP=no")
        return Located(repository, environment={"GIT_SSH_COMMAND": f"{_SSH} {shlex.join(words)}"})
    place = f"[{address}]" if ":" in address else address
    rest = repository.address[match.end("port") if match["port"] else match.end("host") :]
    told = f"{named}:{port}" if match["port"] else named
    return Located(
        repository,
        (f"url.git://{place}:{port}{rest}.insteadOf={repository.address}",),
        {"GIT_OVERRIDE_VIRTUAL_HOST": told},
    )


def commit_of(located: Located) -> str:
    """The commit that the ref points to now. Blocks. :raises InvalidArgument: there is no such ref."""
    repository = located.repository
    if _COMMIT.fullmatch(repository.ref):
        return repository.ref
    wanted = repository.ref or "HEAD"
    names = [wanted] if wanted == "HEAD" else [f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted]
    listed = _git(
        ["ls-remote", "--", repository.address, *names, *(f"{n}^{{}}" for n in names)], located, cwd="/"
    )
    found: dict[str, str] = {}
    for line in listed.splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    for name in names:
        commit = found.get(f"{name}^{{}}") or found.get(name, "")
        if _COMMIT.fullmatch(commit):
            return commit
    raise InvalidArgument(f"repository does not contain ref {wanted}")


def checkout(located: Located, commit: str, directory: Path, *, keep_git: bool) -> Path:
    """Check out a commit in an empty directory; returns the directory of the wanted files. Blocks.

    :raises InvalidArgument: there is no such commit or directory. :raises Unavailable: git is not installed.
    """
    repository = located.repository
    _git(["init", "--quiet", "."], located, cwd=str(directory))
    _git(["remote", "add", "origin", "--", repository.address], located, cwd=str(directory))
    try:
        _git(["fetch", "--quiet", "--depth=1", "--no-tags", "origin", commit], located, cwd=str(directory))
    except InvalidArgument:
        # Servers need not support fetching a single commit, or a part of the history.
        _git(
            [
                "fetch",
                "--quiet",
                "--tags",
                "--update-head-ok",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
            ],
            located,
            cwd=str(directory),
        )
    _git(["checkout", "--quiet", "--detach", commit], located, cwd=str(directory))
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


def _git(arguments: list[str], located: Located, *, cwd: str) -> str:
    program = find_program(["git"])
    if program is None:
        raise Unavailable("cannot fetch a repository: git not found; install package git")
    options = [part for one in (*_CONFIG, *located.options) for part in ("-c", one)]
    env = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_CEILING_DIRECTORIES": "/",
        **located.environment,
    }
    try:
        done = run([program, *options, *arguments], timeout=_TIMEOUT, env=env, cwd=cwd)
    except CommandFailed as e:
        last = e.stderr.strip().splitlines()[-1:] or [e.message]
        raise InvalidArgument(f"cannot fetch the repository: {last[0][:300]}") from e
    return done.stdout.decode("utf-8", "replace")
