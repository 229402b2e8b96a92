"""The ``busybox`` image's root file system, from the distribution's static busybox."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from wherry.errors import Unavailable
from wherry.linux.process import CommandFailed, run
from wherry.model.tarformat import DIRECTORY, LINK, SYMLINK
from wherry.model.tarwriter import TarMember, archive

_INSTALLED = Path("/bin/busybox")
_PACKAGE = "busybox-static"
_TIMEOUT = 120.0
_USERS = (
    ("root", 0, 0, "root", "/root", "/bin/sh"),
    ("daemon", 1, 1, "daemon", "/usr/sbin", "/bin/false"),
    ("bin", 2, 2, "bin", "/bin", "/bin/false"),
    ("sys", 3, 3, "sys", "/dev", "/bin/false"),
    ("sync", 4, 100, "sync", "/bin", "/bin/sync"),
    ("mail", 8, 8, "mail", "/var/spool/mail", "/bin/false"),
    ("www-data", 33, 33, "www-data", "/var/www", "/bin/false"),
    ("operator", 37, 37, "Operator", "/var", "/bin/false"),
    ("nobody", 65534, 65534, "nobody", "/home", "/bin/false"),
)
_GROUPS = (
    *(("root", 0), ("daemon", 1), ("bin", 2), ("sys", 3), ("adm", 4), ("tty", 5), ("disk", 6), ("lp", 7)),
    *(("mail", 8), ("kmem", 9), ("wheel", 10), ("cdrom", 11), ("dialout", 18), ("floppy", 19), ("video", 28)),
    *(("audio", 29), ("www-data", 33), ("operator", 37), ("utmp", 43), ("users", 100), ("nogroup", 65534)),
)
_DIRECTORIES = (
    *(("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("proc", 0o755), ("root", 0o700)),
    *(("run", 0o755), ("sbin", 0o755), ("sys", 0o755), ("tmp", 0o1777), ("usr", 0o755), ("usr/bin", 0o755)),
    *(("usr/sbin", 0o755), ("var", 0o755), ("var/log", 0o755), ("var/spool", 0o755), ("var/tmp", 0o1777)),
    *(("var/spool/mail", 0o755), ("var/www", 0o755)),
)


def rootfs(mtime: int) -> bytes:
    """The whole tar; ``mtime`` (nanoseconds) for all files.

    :raises Unavailable: there is no static busybox here, and its package cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-busybox-") as temporary:
        binary = _find(Path(temporary))
        applets = run([str(binary), "--list-full"], timeout=_TIMEOUT).stdout.decode().split()
        return archive(_members(binary.read_bytes(), applets, mtime))


def _find(temporary: Path) -> Path:
    if _INSTALLED.is_file() and _is_static(_INSTALLED):
        return _INSTALLED
    try:
        run(["apt-get", "download", _PACKAGE], timeout=_TIMEOUT, cwd=str(temporary))
        (package,) = temporary.glob("*.deb")
        run(["dpkg-deb", "-x", str(package), str(temporary / "root")], timeout=_TIMEOUT)
    except (CommandFailed, ValueError) as e:
        raise Unavailable(
            f"cannot make busybox: {_INSTALLED} is not a static busybox, and package {_PACKAGE} "
            f"cannot be downloaded: {e}"
        ) from e
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (temporary / "root" / place).is_file():
            return temporary / "root" / place
    raise Unavailable(f"cannot make busybox: package {_PACKAGE} has no busybox in it")


def _is_static(path: Path) -> bool:
    """Whether an ELF64 file needs no interpreter (a program header of type PT_INTERP)."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:5] != b"\x7fELF\x02":
        return False
    start = int.from_bytes(head[32:40], "little")
    size, count = int.from_bytes(head[54:56], "little"), int.from_bytes(head[56:58], "little")
    types = [head[start + i * size : start + i * size + 4] for i in range(count)]
    return all(int.from_bytes(kind, "little") != 3 for kind in types)


def _members(binary: bytes, applets: list[str], mtime: int) -> Iterator[tuple[TarMember, bytes]]:
    for name, mode in _DIRECTORIES:
        yield TarMember(name=name.encode() + b"/", type=DIRECTORY, mode=mode, mtime=mtime), b""
    yield TarMember(name=b"bin/busybox", mode=0o755, size=len(binary), mtime=mtime), binary
    for applet in sorted(set(applets)):
        # one link per path; linuxrc and similar ones are left out
        if "/" in applet and applet != "bin/busybox":
            yield (
                TarMember(name=applet.encode(), type=LINK, mode=0o755, linkname=b"bin/busybox", mtime=mtime),
                b"",
            )
    for name, text, mode in _etc():
        yield TarMember(name=name.encode(), mode=mode, size=len(text), mtime=mtime), text.encode()
    yield TarMember(name=b"etc/mtab", type=SYMLINK, mode=0o777, linkname=b"/proc/mounts", mtime=mtime), b""
    yield TarMember(name=b"var/run", type=SYMLINK, mode=0o777, linkname=b"/run", mtime=mtime), b""


def _etc() -> Iterator[tuple[str, str, int]]:
    users = "".join(f"{u}:x:{uid}:{gid}:{text}:{home}:{shell}\n" for u, uid, gid, text, home, shell in _USERS)
    yield "etc/passwd", users, 0o644
    yield "etc/group", "".join(f"{group}:x:{gid}:\n" for group, gid in _GROUPS), 0o644
    yield "etc/shadow", "".join(f"{user[0]}:*:10933:0:99999:7:::\n" for user in _USERS), 0o600
    yield "etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n", 0o644
    yield "etc/shells", "/bin/sh\n/bin/ash\n", 0o644
