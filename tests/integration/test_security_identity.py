"""Who processes are and what they may: users by number, groups, capabilities, what is read-only."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
from buildlab import archive, post, stream
from daemonlab import LabDaemon, wait_until
from test_security_escapes import image_of

pytestmark = pytest.mark.kernel

PASSWD = b"root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\nann:x:1001:1002::/home/ann:/bin/sh\n"
GROUP = b"root:x:0:\n1000:x:0:\nstaff:x:50:ann\n"
NET_RAW = 13
WHO = "echo $(id -u):$(id -g) $(id -G)"


@pytest.fixture
def trap(daemon: LabDaemon) -> str:
    """An image in which a number is root's name."""
    return image_of(daemon, {"etc/passwd": PASSWD, "etc/group": GROUP}, 'CMD ["busybox","sleep","1000"]')


def run(daemon: LabDaemon, image: str, *flags: str) -> str:
    return daemon.docker("run", "--rm", *flags, image, "busybox", "sh", "-c", WHO).ok()


def exec_(daemon: LabDaemon, image: str, *flags: str) -> str:
    identifier = daemon.docker("run", "-d", image).ok()
    return daemon.docker("exec", *flags, identifier, "busybox", "sh", "-c", WHO).ok()


def built(daemon: LabDaemon, image: str, *flags: str) -> str:
    who = dict(zip(flags[::2], flags[1::2], strict=True))["-u"]
    text = f"FROM {image}\nUSER {who}\nRUN busybox sh -c '{WHO}'\n"
    lines = stream(post(daemon, archive({"Dockerfile": text}))).splitlines()
    return next(line for line in lines if line[:1].isdigit())


def health(daemon: LabDaemon, image: str, *flags: str) -> str:
    check = f"busybox sh -c '{WHO}'"
    identifier = daemon.docker(
        "run", "-d", *flags, "--health-cmd", check, "--health-interval", "1s", image
    ).ok()

    def output() -> Any:
        found = json.loads(daemon.docker("inspect", identifier).ok())[0]["State"]["Health"]["Log"]
        return found and found[-1]["Output"]

    return str(wait_until(output)).strip()


@pytest.mark.parametrize("way", [run, exec_, built, health])
@pytest.mark.parametrize(
    "who, expected",
    [
        ("1000", "1000:0 0"),
        ("1000:1000", "1000:1000 1000"),
        ("1001", "1001:1002 50 1002"),
        ("ann", "1001:1002 50 1002"),
        ("ann:staff", "1001:50 50"),
        ("77:50", "77:50 50"),
    ],
)
def test_users_and_their_groups(
    daemon: LabDaemon, trap: str, way: Callable[..., str], who: str, expected: str
) -> None:
    """A number is an id, whatever the image calls root, and the primary group is a supplementary one."""
    found, _, groups = way(daemon, trap, "-u", who).partition(" ")
    assert f"{found} {' '.join(sorted(set(groups.split()), key=int))}" == expected


def test_groups_of_a_process(daemon: LabDaemon, trap: str) -> None:
    """As the kernel has them: a set-gid program must not be a way round a file closed to the group."""
    read = ("busybox", "grep", "^Groups:", "/proc/self/status")
    for flags, groups in (
        (("-u", "77:78"), [78]),
        (("-u", "77:78", "--group-add", "1000", "--group-add", "staff"), [50, 78, 1000]),
        ((), [0]),
    ):
        out = daemon.docker("run", "--rm", *flags, trap, *read).ok()
        assert sorted(map(int, out.split()[1:])) == groups, flags
        identifier = daemon.docker("run", "-d", *flags, trap).ok()
        out = daemon.docker("exec", identifier, *read).ok()
        assert sorted(map(int, out.split()[1:])) == groups, flags


def test_a_file_closed_to_the_primary_group(daemon: LabDaemon) -> None:
    """CVE-2022-36109: without the group among the supplementary ones a program of another group reads it."""
    script = (
        "cp /bin/busybox /tmp/busybox; chgrp 99 /tmp/busybox; chmod 2755 /tmp/busybox; "
        "echo secret > /tmp/closed; chgrp 100 /tmp/closed; chmod 604 /tmp/closed; sleep 1000"
    )
    identifier = daemon.docker("run", "-d", "busybox", "sh", "-c", script).ok()
    wait_until(lambda: daemon.docker("exec", identifier, "test", "-e", "/tmp/closed").code == 0)
    wait_until(lambda: daemon.docker("exec", identifier, "stat", "-c", "%a", "/tmp/closed").out == "604")
    done = daemon.docker("exec", "-u", "1000:100", identifier, "/tmp/busybox", "cat", "/tmp/closed")
    assert done.code != 0 and "ermission denied" in done.errors


@pytest.mark.parametrize("who", ["2147483648", "4294967296", "-1", "0:4294967296", "9" * 30])
def test_ids_out_of_range(daemon: LabDaemon, trap: str, who: str) -> None:
    done = daemon.docker("run", "--rm", f"--user={who}", trap, "busybox", "true")
    assert done.code != 0 and "uids and gids must be in range 0-2147483647" in done.errors


def test_owners_of_copies(daemon: LabDaemon, trap: str) -> None:
    text = (
        f"FROM {trap}\n"
        "COPY --chown=1000 f /a\nCOPY --chown=1000:1000 f /b\n"
        "COPY --chown=ann f /c\nCOPY --chown=ann:1000 f /d\n"
        "RUN busybox stat -c '%n %u:%g' /a /b /c /d\n"
    )
    out = stream(post(daemon, archive({"Dockerfile": text, "f": "x"})))
    for line in ("/a 1000:1000", "/b 1000:1000", "/c 1001:1002", "/d 1001:1000"):
        assert line in out, out


# ---- capabilities ------------------------------------------------------------------------------------------


@pytest.fixture
def capable(daemon: LabDaemon) -> str:
    """An image with a program that has CAP_NET_RAW by its file."""
    identifier = daemon.docker("run", "-d", "busybox", "sleep", "1000").ok()
    daemon.docker("exec", identifier, "sh", "-c", "mkdir /x; cp /bin/busybox /x/busybox").ok()
    permitted_and_effective = struct.pack("<5I", 0x02000001, 1 << NET_RAW, 0, 0, 0)
    where = f"/proc/{daemon.pid_of(identifier)}/root/x/busybox"
    os.setxattr(where, "security.capability", permitted_and_effective)
    return daemon.docker("commit", identifier).ok()


def sets(status: str) -> dict[str, int]:
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Cap"))
    return {key: int(value, 16) for key, value in lines.items()}


STATUS = ("grep", "^Cap", "/proc/self/status")


@pytest.mark.parametrize("way", ["run", "exec"])
@pytest.mark.parametrize("flags", [(), ("--security-opt", "no-new-privileges")])
@pytest.mark.parametrize(
    "program, expected",
    [(("/x/busybox",), 1 << NET_RAW), (("busybox",), 0), (("sh", "-c", "/x/busybox true"), 0)],
)
def test_capabilities_of_a_file(
    daemon: LabDaemon, capable: str, way: str, flags: tuple[str, ...], program: tuple[str, ...], expected: int
) -> None:
    """A user other than root has what its program's file says, also where privileges cannot grow, and
    nothing else."""
    command = (*program, *STATUS) if program[0] != "sh" else ("sh", "-c", " ".join(("busybox", *STATUS)))
    if way == "run":
        out = daemon.docker("run", "--rm", "-u", "1000", *flags, capable, *command).ok()
    else:
        identifier = daemon.docker("run", "-d", *flags, capable, "sleep", "1000").ok()
        out = daemon.docker("exec", "-u", "1000", identifier, *command).ok()
    found = sets(out)
    assert (found["CapPrm"], found["CapEff"]) == (expected, expected)
    assert (found["CapInh"], found["CapAmb"]) == (0, 0)


@pytest.mark.parametrize("who", ["0", "1000"])
def test_capabilities_by_user(daemon: LabDaemon, who: str) -> None:
    """Added ones are in the bounding set of everybody and in force for root alone, as is everything for the
    privileged; an exec of the privileged kind has all of them."""
    every = sets(daemon.docker("run", "--rm", "--privileged", "busybox", *STATUS).ok())["CapBnd"]
    added = sets(daemon.docker("run", "--rm", "-u", who, "--cap-add", "NET_ADMIN", "busybox", *STATUS).ok())
    assert added["CapBnd"] >> 12 & 1
    identifier = daemon.docker("run", "-d", "busybox", "sleep", "1000").ok()
    raised = sets(daemon.docker("exec", "--privileged", "-u", who, identifier, *STATUS).ok())
    full = sets(daemon.docker("run", "--rm", "--privileged", "-u", who, "busybox", *STATUS).ok())
    assert raised["CapBnd"] == full["CapBnd"] == every
    for found in (added, raised, full):
        own = found["CapBnd"] if who == "0" else 0
        assert (found["CapPrm"], found["CapEff"]) == (own, own)
        assert (found["CapInh"], found["CapAmb"]) == (0, 0)


def test_an_exec_does_not_undo_no_new_privileges(daemon: LabDaemon) -> None:
    identifier = daemon.docker(
        "run", "-d", "--security-opt", "no-new-privileges", "busybox", "sleep", "1000"
    ).ok()
    for flags in ((), ("--privileged",)):
        out = daemon.docker("exec", *flags, identifier, "grep", "NoNewPrivs", "/proc/self/status").ok()
        assert out.split()[-1] == "1"


# ---- read-only ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--privileged",), ("--network", "host"), ("--init",)])
def test_nothing_of_a_read_only_container_can_be_written(daemon: LabDaemon, flags: tuple[str, ...]) -> None:
    """Nothing but what is in memory and what the user mounts; the files the engine gives are not either."""
    script = (
        "for f in /etc/hosts /etc/resolv.conf /etc/hostname; do echo x >> $f && echo wrote $f; done; "
        "for d in / /etc /run /tmp /sbin; do true > $d/new && echo wrote $d; done; "
        "true > /dev/shm/new && true > /t/new && echo done"
    )
    out = daemon.docker("run", "--rm", "--read-only", "--tmpfs", "/t", *flags, "busybox", "sh", "-c", script)
    assert out.out.splitlines() == ["done"]


def test_files_are_not_copied_into_a_read_only_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "--read-only", "busybox", "sleep", "1000").ok()
    for start in (False, True):
        if start:
            daemon.docker("start", name).ok()
        done = daemon.docker("cp", "-", f"{name}:/etc", input=archive({"hosts": "10.0.0.1 evil\n"}))
        assert done.code != 0 and "read-only" in done.errors
    assert "evil" not in daemon.docker("exec", name, "cat", "/etc/hosts").ok()


def test_the_files_can_be_written_otherwise(daemon: LabDaemon) -> None:
    out = daemon.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo 1.2.3.4 x >> /etc/hosts && grep 1.2.3.4 /etc/hosts"
    )
    assert out.ok() == "1.2.3.4 x"
