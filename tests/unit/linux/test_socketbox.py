from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from wherry.linux import socketbox
from wherry.linux.socketbox import SocketBox


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


HERE = f"127.{os.getpid() >> 16 & 127 | 128}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""An address of this process alone: whose ports nobody takes once they are free."""


def bound() -> tuple[int, socket.socket]:
    sock = socket.socket()
    sock.bind((HERE, 0))
    sock.listen(0)
    return sock.getsockname()[1], sock


def is_held(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HERE, port))
        except OSError:
            return True
        return False


def filled(count: int) -> tuple[SocketBox[int], list[int]]:
    box: SocketBox[int] = SocketBox()
    ports = []
    for _ in range(count):
        port, sock = bound()
        ports.append(port)
        box.put(port, sock)
    box.seal()
    return box, ports


@contextmanager
def limited(room: int) -> Iterator[None]:
    """So many descriptors are free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = [os.dup(0) for _ in range(highest - descriptors() + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max([highest, *fillers]) + 1 + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 250])
def test_one_descriptor_for_all(count: int) -> None:
    before = descriptors()
    box, ports = filled(count)
    assert descriptors() == before + 1
    assert all(map(is_held, ports))
    box.close()
    assert descriptors() == before
    assert not any(map(is_held, ports))


@pytest.mark.parametrize("count", [1, 3, 250])
def test_some_are_closed_and_the_others_stay(count: int) -> None:
    before = descriptors()
    box, ports = filled(count)
    gone = set(ports[::2])
    box.drop(gone.__contains__)
    assert [is_held(p) for p in ports] == [p not in gone for p in ports]
    assert descriptors() == before + (1 if count > 1 else 0)
    box.drop(lambda _: False)
    assert [is_held(p) for p in ports] == [p not in gone for p in ports]
    box.drop(lambda _: True)
    assert not any(map(is_held, ports))
    assert descriptors() == before
    box.close()


def test_queues_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketbox, "_MESSAGES", 2)
    before = descriptors()
    box, ports = filled(450)
    assert descriptors() == before + 3
    box.drop(set(ports[100:300]).__contains__)
    assert [is_held(p) for p in ports] == [True] * 100 + [False] * 200 + [True] * 150
    box.close()
    assert descriptors() == before


def test_a_range_needs_few_descriptors_for_a_moment() -> None:
    with limited(110):
        box, ports = filled(400)
    assert all(map(is_held, ports))
    box.close()


def test_without_room_nothing_is_lost() -> None:
    box, ports = filled(90)
    before = descriptors()
    with limited(10), pytest.raises(OSError, match="Too many open files"):
        box.drop({ports[0]}.__contains__)
    assert descriptors() == before
    assert all(map(is_held, ports))
    with limited(0):
        box.close()
    assert not any(map(is_held, ports))
