"""``debian`` root file systems, made by mmdebstrap (else debootstrap) from the host's own mirrors.

The packages come from the host's own Debian mirrors, unless another mirror is given. The host's proxy and
certificates are used, but are not left in the image.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from wherry.errors import InvalidArgument, Unavailable
from wherry.images.debiansteps import Stage, hooks
from wherry.linux import trees
from wherry.linux.process import CommandFailed, run
from wherry.model.mount import Mount

DEFAULT_SUITE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
_TIMEOUT = 1800.0
_SUITE = re.compile(r"[a-z][a-z0-9-]{1,31}")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PROXY_KEYS = ("http_proxy", "https_proxy", "no_proxy", "ftp_proxy")
_NOTHING_OF_THIS_HOST = (
    '--customize-hook=echo localhost >"$1/etc/hostname"; : >"$1/etc/resolv.conf"'
    '; rm -f "$1/var/log/bootstrap.log"'
)
_MOUNT_AND_RUN = 'mount -t "$1" -o "$2" "$3" "$4"; shift 4; exec "$@"'
_LEFT_OVER = (
    *(b"dev/", b"run/", b"tmp/", b"var/cache/apt/", b"var/cache/ldconfig/", b"var/lib/apt/lists/"),
    b"var/log/",
)
_OF_THE_HOST = (b"etc/hostname", b"etc/resolv.conf", b"etc/apt/sources.list")
_SLIM = (
    *(
        "/usr/share/doc/*",
        "/usr/share/man/*",
        "/usr/share/info/*",
        "/usr/share/locale/*",
        "/usr/share/groff/*",
    ),
    *("/usr/share/lintian/*", "/usr/share/linda/*"),
)


def check_suite(suite: str) -> str:
    """:raises InvalidArgument: not a valid name of a suite."""
    if not _SUITE.fullmatch(suite):
        raise InvalidArgument(f"cannot make debian:{suite}: that is not the name of a suite")
    return suite


@contextmanager
def rootfs(
    suite: str,
    *,
    slim: bool,
    mirror: str | None,
    epoch: int,
    stage: Stage,
    scratch: Path | None = None,
) -> Iterator[Path]:
    """A tar of a minimal system; it exists as long as the ``with``.

    :param epoch: seconds; later times are set to it. :param scratch: the working directory, instead of
        ``/tmp``.
    :param stage: called with the current step, from another thread.
    :raises Unavailable: no tool for it is installed, or the tool failed.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-debian-", dir=scratch) as temporary:
        target = Path(temporary) / "rootfs.tar"
        lines = [f"deb {mirror} {suite} main"] if mirror else sources(suite)
        try:
            if shutil.which("mmdebstrap"):
                _mmdebstrap(suite, target, lines, slim=slim, epoch=epoch, stage=stage)
            elif shutil.which("debootstrap"):
                stage("fetching and installing packages")
                _debootstrap(suite, target, lines, slim=slim, epoch=epoch)
            else:
                raise Unavailable(
                    f"cannot make debian:{suite}: neither mmdebstrap nor debootstrap is installed"
                )
        except CommandFailed as e:
            raise Unavailable(f"cannot make debian:{suite}: {e}") from e
        yield target


def _mmdebstrap(suite: str, target: Path, lines: list[str], *, slim: bool, epoch: int, stage: Stage) -> None:
    argv = [*_mmdebstrap_argv("minbase"), "--format=tar", "--skip=output/dev", _NOTHING_OF_THIS_HOST]
    if slim:
        argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _SLIM]
        argv.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")
    # mmdebstrap builds the system in /tmp, and cleans up there itself. If apt's own user could not enter that
    # directory, apt's directories in the image would get other owners.
    with hooks(stage) as flags:
        run([*argv, *flags, suite, str(target), *lines], timeout=_TIMEOUT, env=_environment(epoch))


def _mmdebstrap_argv(variant: str) -> list[str]:
    argv = ["mmdebstrap", "--quiet", f"--variant={variant}", "--mode=root"]
    return [*argv, f"--keyring={_KEYRING}"] if _KEYRING.is_file() else argv


def install(
    suite: str,
    packages: Sequence[str],
    where: Mount,
    *,
    script: str,
    mirror: str | None,
    epoch: int,
    stage: Stage,
) -> None:
    """Add packages to an existing system, then run a shell script in it.

    The tool mounts it in its own mount namespace, which ends with it.

    :raises Unavailable: mmdebstrap is not installed, or it failed.
    """
    what = f"cannot add {', '.join(packages)} to debian:{suite}"
    if not shutil.which("mmdebstrap"):
        raise Unavailable(f"{what}: mmdebstrap is not installed")
    lines = [f"deb {mirror} {suite} main"] if mirror else sources(suite)
    with tempfile.TemporaryDirectory(prefix="wherry-debian-") as target:
        flags = ",".join(where.options)
        kind = "none" if where.type == "bind" else where.type
        argv = ["unshare", "--mount", "--propagation=private", "sh", "-ec", _MOUNT_AND_RUN, "sh"]
        argv += [kind, flags if where.type != "bind" else f"{flags},bind", where.source, target]
        argv += [*_mmdebstrap_argv("custom"), "--format=directory", "--skip=check/empty"]
        argv += [f"--include={','.join(packages)}", f'--customize-hook=chroot "$1" sh -ec {quote(script)}']
        try:
            with hooks(stage) as steps:
                run([*argv, *steps, suite, target, *lines], timeout=_TIMEOUT, env=_environment(epoch))
        except CommandFailed as e:
            raise Unavailable(f"{what}: {e}") from e


def is_of_installing(path: bytes) -> bool:
    """Whether a file exists only because of :func:`install`, or differs each time."""
    return path.startswith(_LEFT_OVER) or path.endswith(b"-old") or path in _OF_THE_HOST


def _debootstrap(suite: str, target: Path, lines: list[str], *, slim: bool, epoch: int) -> None:
    tree = target.with_name("tree")
    mirror = lines[0].split()[1]
    try:
        argv = ["debootstrap", "--variant=minbase", suite, str(tree), mirror]
        run(argv, timeout=_TIMEOUT, env=_environment(epoch))
        (tree / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")
        for pattern in (
            "var/cache/apt/archives/*.deb",
            "var/lib/apt/lists/*",
            "var/log/bootstrap.log",
            "dev/*",
        ):
            for path in tree.glob(pattern):
                trees.remove(path)
        if slim:
            for excluded in _SLIM[1:]:
                for path in tree.glob(excluded.strip("/")):
                    trees.remove(path)
        tar = ["tar", "--sort=name", "--numeric-owner", "--xattrs", f"--mtime=@{epoch}", "--clamp-mtime"]
        run([*tar, "-C", str(tree), "-cf", str(target), "."], timeout=_TIMEOUT)
    finally:
        trees.remove(tree)


def sources(suite: str, root: Path = Path("/etc/apt")) -> list[str]:
    """One-line sources for a suite, its updates and its security fixes, from the host's mirrors.

    If the host has no entry for one of them, deb.debian.org is used.
    """
    main = security = None
    for uri, name in _host_entries(root):
        if name.endswith("-security") or "debian-security" in uri:
            security = security or uri
        elif "debian" in uri:
            main = main or uri
    mirror = main or DEFAULT_MIRROR
    lines = [f"deb {mirror} {suite} main"]
    if suite not in ("sid", "unstable", "experimental", "testing"):
        lines.append(f"deb {mirror} {suite}-updates main")
        lines.append(f"deb {security or mirror.rstrip('/') + '-security'} {suite}-security main")
    return lines


def _host_entries(root: Path) -> Iterator[tuple[str, str]]:
    """(URI, suite) of every enabled source: sources.list(5), one-line and deb822 style."""
    for path in [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            for line in text.splitlines():
                words = re.sub(r"\[[^]]*\]", "", line).split()
                if len(words) >= 4 and words[0] == "deb":
                    yield words[1], words[2]
        elif path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                yield from _stanza(stanza)


def _stanza(stanza: str) -> Iterator[tuple[str, str]]:
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[key] = fields.get(key, "") + " " + line.strip()
        else:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            fields[key] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
        return
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield uri, suite


def _environment(epoch: int) -> dict[str, str]:
    """SOURCE_DATE_EPOCH, and the daemon's proxies."""
    found = {key: os.environ[key] for key in _PROXY_KEYS if key in os.environ}
    found |= {key.upper(): os.environ[key.upper()] for key in _PROXY_KEYS if key.upper() in os.environ}
    return {**found, "SOURCE_DATE_EPOCH": str(epoch), "DEBIAN_FRONTEND": "noninteractive"}
