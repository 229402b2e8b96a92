"""Run by test_launchspace_kernel in a mount namespace of its own, whose mounts are shared as systemd has
them: ``launchroom.py CASE DIRECTORY``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wherry.linux import launchspace, netns
from wherry.linux.launchspace import LaunchSpace


def host() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def points(lines: list[str]) -> set[str]:
    return {line.split(" ")[4] for line in lines}


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def inside(space: str, *command: str) -> str:
    done = subprocess.run(
        ["nsenter", f"--mount={space}", "--", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Room:
    """Three tasks with a root each, a pinned namespace each, and a mount of the host's."""

    def __init__(self, directory: Path, *, least: int = 4) -> None:
        mount("--make-rshared", "/")
        self.tasks, self.pins, self.other = (directory / name for name in ("tasks", "netns", "other"))
        for made in (self.tasks, self.other):
            made.mkdir()
        assert launchspace.prepare(self.tasks)
        assert launchspace.prepare(self.tasks)
        netns.prepare_directory(self.pins)
        mount("-t", "tmpfs", "other", str(self.other))
        for name in "abc":
            self.task(name)
        self.space = LaunchSpace([self.tasks, self.pins], least=least)
        with self.space.entered([]) as space:
            assert space is None, "the first start after a while is not made to wait"

    def task(self, name: str) -> None:
        root = self.tasks / name / "rootfs"
        root.mkdir(parents=True)
        mount("-t", "tmpfs", name, str(root))
        (root / "who").write_text(name)
        netns.pin("/proc/self/ns/net", self.pins / name)

    @contextmanager
    def entered(self, name: str) -> Iterator[str]:
        with self.space.entered([str(self.tasks / name), str(self.pins / name)]) as space:
            assert space is not None
            yield space


def own_mounts_only(directory: Path) -> None:
    room = Room(directory)
    before = host()
    with room.entered("b") as space:
        found = inside(space, "cat", "/proc/self/mountinfo").splitlines()
        here = {point for point in points(found) if point.startswith(f"{directory}/")}
        assert here == {
            str(room.other),
            str(room.tasks),
            str(room.tasks / "b"),
            str(room.tasks / "b" / "rootfs"),
            str(room.pins),
            str(room.pins / "b"),
        }, here
        assert points(before) - points(found) == {
            str(path) for name in "ac" for path in (room.tasks / name / "rootfs", room.pins / name)
        }
        assert inside(space, "cat", str(room.tasks / "b" / "rootfs" / "who")) == "b"
        assert inside(space, "ls", str(room.tasks / "a" / "rootfs")) == ""
        assert inside(space, "stat", "-Lc", "%i", str(room.pins / "b")).strip() == str(
            os.stat("/proc/self/ns/net").st_ino
        )
        assert host() == before, "the host's mounts are others now"
    assert host() == before, "the host's mounts are others afterwards"


def the_hosts_mounts_are_its_own(directory: Path) -> None:
    """What is mounted in a space below the host's mounts is mounted on the host, and the other way round."""
    room = Room(directory)
    (room.other / "in").mkdir()
    (room.other / "out").mkdir()
    with room.entered("a") as space:
        inside(space, "mount", "-t", "tmpfs", "new", str(room.other / "in"))
        assert str(room.other / "in") in points(host())
        mount("-t", "tmpfs", "new", str(room.other / "out"))
        assert str(room.other / "out") in points(inside(space, "cat", "/proc/self/mountinfo").splitlines())


def it_follows_the_host(directory: Path) -> None:
    launchspace._PAUSE = 0
    mount("--make-rprivate", "/")
    room = Room(directory)
    mount("--make-rprivate", "/")  # what changes on the host does not come into the copy by itself
    netns_shared = str(room.pins)
    mount("--make-shared", netns_shared)

    def table() -> list[str]:
        with room.entered("a") as space:
            return inside(space, "cat", "/proc/self/mountinfo").splitlines()

    def options() -> str:
        return next(line.split(" ")[5] for line in table() if line.split(" ")[4] == str(room.other))

    assert options().startswith("rw")
    mount("-o", "remount,bind,ro", str(room.other))
    assert options().startswith("ro")
    (directory / "later").mkdir()
    mount("-t", "tmpfs", "later", str(directory / "later"))
    assert str(directory / "later") in points(table())
    subprocess.run(["umount", str(directory / "later")], check=True)
    assert str(directory / "later") not in points(table())
    mount("--make-shared", str(room.other))
    assert any("shared:" in line for line in table() if line.split(" ")[4] == str(room.other))
    made = room.space._copy
    room.task("d")
    table()
    assert room.space._copy == made, "the tasks' own mounts make it again"


def it_is_not_made_again_and_again(directory: Path) -> None:
    room = Room(directory)
    with room.entered("a"):
        pass
    (directory / "later").mkdir()
    mount("-t", "tmpfs", "later", str(directory / "later"))
    with room.space.entered([]) as space:
        assert space is None
    assert room.space._copy < 0, "it keeps what the host may unmount"


def few_do_without(directory: Path) -> None:
    room = Room(directory, least=7)
    with room.space.entered([]) as space:
        assert space is None
    room.task("d")
    with room.space.entered([]) as space:
        assert space is not None


def nothing_stays(directory: Path) -> None:
    launchspace._PAUSE = 0
    room = Room(directory)
    before = set(os.listdir("/proc/self/fd"))
    with room.entered("a"):
        pass
    while room.space._timer is not None:
        room.space._timer.join()
    assert set(os.listdir("/proc/self/fd")) == before
    with room.space.entered([]) as space:
        assert space is None
    with room.entered("a"):
        room.space.close()
    assert set(os.listdir("/proc/self/fd")) == before
    missing = [str(room.tasks / "none")]
    with room.space.entered(missing) as space:
        assert space is None
    room.space.close()
    assert set(os.listdir("/proc/self/fd")) == before
    launchspace.release(room.tasks)
    launchspace.release(room.tasks)
    assert not any(point.startswith(str(room.tasks)) for point in points(host()))


def a_directory_that_is_no_mount(directory: Path) -> None:
    """Nothing is unmounted anywhere, although the copy cannot be told from the host."""
    room = Room(directory)
    plain = directory / "plain"
    (plain / "x").mkdir(parents=True)
    mount("-t", "tmpfs", "x", str(plain / "x"))
    before = host()
    with LaunchSpace([plain], least=0).entered([]) as space:
        assert space is None
    assert host() == before
    assert not launchspace.prepare(plain), "a new mount would hide what is mounted below"
    assert host() == before
    assert room.space._copy < 0


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
