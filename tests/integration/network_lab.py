"""Hosts in miniature: a forked child with network and mount namespaces of its own is "the host", further
network namespaces with a wire to it are other hosts. The machine the tests run on sees nothing of it."""

from __future__ import annotations

import functools
import gc
import os
import re
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import patience
import pytest
from patience import patiently

from wherry.linux import netns, syscalls
from wherry.linux import rtkinds as kinds
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket
from wherry.network import room
from wherry.network.room import NetworkRoom
from wherry.network.types import Instance, NetworkConfig
from wherry.state import schema
from wherry.state.database import Database

T = TypeVar("T")
QUIET = 0.3
"""Seconds after which an answer that must not come is taken not to come; one that comes takes under 1 ms."""


def until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Wait for a condition; fails after ``seconds`` of an ordinary machine."""
    patience.until(condition, what, seconds)


def child(function: Callable[[], None]) -> int:
    """Run ``function`` in a forked child with fresh namespaces; return its exit status, print its failure."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
            with NetlinkSocket() as sock:
                sock.transact(rt.set_link(1, up=True))
            function()
            status = 0
        except pytest.skip.Exception as e:
            os.write(writer, str(e).encode())
            status = 77
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 77:
        pytest.skip(text)
    if text:
        print(text, file=sys.stderr)
    return code


def on_a_host(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in :func:`child`."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        code = child(lambda: test(*args, **kwargs))
        if code:
            pytest.fail(f"the host's process ended with {code}; its traceback is on stderr", pytrace=False)

    return wrapper


def shell(*argv: str, where: Path | None = None) -> str:
    """Run a program, in a namespace if one is given."""

    def run() -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    return run() if where is None else netns.inside(where, run)


def manager(
    directory: Path, *, instance: str = "default", config: NetworkConfig | None = None
) -> NetworkRoom:
    """A manager on the database in ``directory``; a second call is a restart."""
    db = Database(directory / "wherry.db", schema.MIGRATIONS)
    return room.wire(db, directory / "run", instance=Instance(instance), config=config)


def other_host(directory: Path, name: str, subnet: str) -> Path:
    """Another host, ``<subnet>.2``, on a wire to this one, ``<subnet>.1``, its default gateway."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    netns.create(path, lambda: None)
    shell("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(path))
    shell("ip", "addr", "add", f"{subnet}.1/24", "dev", name)
    shell("ip", "link", "set", name, "up")
    for line in ("link set lo up", f"addr add {subnet}.2/24 dev eth0", "link set eth0 up"):
        shell("ip", *line.split(), where=path)
    shell("ip", "route", "add", "default", "via", f"{subnet}.1", where=path)
    return path


def lacks(creation: NetlinkMessage) -> bool:
    """Whether the kernel knows no interface of the kind that this would make. To be asked on a host of the
    test's own, as one may be made."""
    with NetlinkSocket() as sock:
        try:
            sock.transact(creation)
        except NetlinkError as e:
            return kinds.unsupported(e)
    return False


def _socket(where: Path | None, kind: int) -> socket.socket:
    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, kind)

    return make() if where is None else netns.inside(where, make)


def serve(where: Path | None, port: int, word: str, *, ip: str = "0.0.0.0", udp: bool = False) -> None:
    """Answer every client with ``<word> <client's address>``, until the process ends."""
    sock = _socket(where, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ip, port))

    def answer_datagrams() -> None:
        while True:
            _data, peer = sock.recvfrom(100)
            sock.sendto(f"{word} {peer[0]}".encode(), peer)

    def answer_connections() -> None:
        while True:
            connection, peer = sock.accept()
            with connection:
                connection.sendall(f"{word} {peer[0]}".encode())

    if not udp:
        sock.listen(16)
    target = answer_datagrams if udp else answer_connections
    threading.Thread(target=target, daemon=True).start()


def ask(
    where: Path | None,
    ip: str,
    port: int,
    *,
    udp: bool = False,
    timeout: float = 5,
    source_port: int = 0,
) -> str:
    """What the server there says, ``refused``, or ``silence``."""
    with _socket(where, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as sock:
        sock.settimeout(patiently(timeout))
        if source_port:
            sock.bind(("0.0.0.0", source_port))
        try:
            sock.connect((ip, port))
            if udp:
                sock.send(b"?")
            return sock.recv(100).decode()
        except TimeoutError:
            return "silence"
        except ConnectionRefusedError:
            return "refused"
        except OSError as e:
            return os.strerror(e.errno or 0)


def ruleset_words() -> list[str]:
    """What the rule set says; the kernel keeps the elements of sets in any order."""
    return sorted(re.split(r"[\s,{}]+", shell("nft", "list", "ruleset")))


def footprint(directory: Path) -> dict[str, object]:
    """Everything that could leak: links, pins, nft, mounts, rows, descriptors."""
    # The process was forked from one that may hold garbage with descriptors of its own.
    gc.collect()
    with NetlinkSocket() as sock:
        names = sorted(link.name for link in rt.links(sock))
    run = directory / "run" / "netns"
    db = Database(directory / "wherry.db", schema.MIGRATIONS)
    rows = {t: len(db.all(f"SELECT * FROM {t}")) for t in ("sandboxes", "endpoints", "published")}
    db.close()
    # Only those below: a copy of somebody else's mount goes when its directory is removed elsewhere.
    everywhere = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [target for target in everywhere if target.startswith(str(directory))]
    return {
        "links": names,
        "pins": sorted(p.name for p in run.iterdir()) if run.is_dir() else [],
        "nft": ruleset_words(),
        "mounts": sorted(mounts),
        "rows": rows,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }
