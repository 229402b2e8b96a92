"""What follows from the facts about a host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wherry.doctor import checks, mending, report
from wherry.doctor.findings import Level
from wherry.doctor.host import FreeRoom, HostFacts, Program

GIB = 1 << 30
BAD, WARN, NOTE = Level.PROBLEM, Level.WARNING, Level.NOTE
GOOD = HostFacts(
    kernel=(6, 1, 0),
    filesystems=frozenset({"overlay", "ext4"}),
    controllers=frozenset({"memory", "pids", "cpu", "cpuset", "io"}),
    links=dict.fromkeys(("bridge", "veth", "vxlan", "vlan", "macvlan", "ipvlan"), True),
    nameservers=["192.0.2.1"],
    programs={
        "conmon": Program("/usr/bin/conmon", (2, 1, 6)),
        "crun": Program("/usr/bin/crun", (1, 8, 1)),
        "git": Program("/usr/bin/git"),
        "mmdebstrap": Program("/usr/bin/mmdebstrap"),
    },
    rooms=[FreeRoom("/var/lib/wherry", "ext4", 50 * GIB, 100 * GIB, 1000, 1000)],
)


def good(**but: Any) -> HostFacts:
    return replace(GOOD, **but)


def without(name: str) -> dict[str, Program]:
    return {key: value for key, value in GOOD.programs.items() if key != name}


CASES: dict[str, tuple[HostFacts, Level, str, str, str]] = {
    "not root": (good(root_user=False), BAD, "user", "not root", "sudo"),
    "an old kernel": (good(kernel=(5, 10)), BAD, "kernel", "5.10 is older than 5.12", "newer"),
    "no overlayfs": (good(filesystems=frozenset()), WARN, "overlayfs", "does not", "modprobe"),
    "no seccomp": (good(seccomp=False), WARN, "seccomp", "does not", "CONFIG_SECCOMP"),
    "no memory controller": (
        good(controllers=GOOD.controllers - {"memory"}),
        WARN, "cgroups", "controller memory is not there", "cgroup_enable=memory",
    ),
    "version 1": (good(cgroup_version=1), NOTE, "cgroups", "version 1", "unified"),
    "no conmon": (good(programs=without("conmon")), BAD, "conmon", "not found", "package conmon"),
    "an old crun": (
        good(programs=GOOD.programs | {"crun": Program("/x", (0, 14))}),
        BAD, "crun", "0.14 is older than 0.16", "newer crun",
    ),
    "runc alone": (
        good(programs=without("crun") | {"runc": Program("/x", (1, 1))}),
        NOTE, "crun", "not found", "package crun",
    ),
    "no nftables": (good(nft_error="libnftables.so.1 not found"), BAD, "nftables", "not found", ""),
    "no protocols": (good(protocols=False), BAD, "/etc/protocols", "not found", "package netbase"),
    "ufw": (good(drops=["ip filter FORWARD"]), WARN, "firewall", "drops forwarded", "ufw"),
    "a chain of nft": (
        good(drops=["inet fw fwd"]), WARN, "firewall", "inet fw fwd", "nft insert rule inet fw fwd",
    ),
    "no veth": (good(links={"veth": False}), BAD, "kernel", "veth", "modprobe veth"),
    "no ipvlan": (good(links={"ipvlan": False}), NOTE, "kernel", "ipvlan", "modprobe ipvlan"),
    "no name server": (good(nameservers=[]), WARN, "DNS", "names no server", "dns"),
    "a network's file system": (
        good(rooms=[FreeRoom("/r", "nfs4", 50 * GIB, 99 * GIB)]), WARN, "/r", "on nfs4", "--root",
    ),
    "little room": (
        good(rooms=[FreeRoom("/r", "ext4", GIB // 2, 9 * GIB)]), WARN, "/r", "0.5 GiB of 9", "prune",
    ),
    "no room": (good(rooms=[FreeRoom("/r", "ext4", 1 << 20, 9 * GIB)]), BAD, "/r", "0.0 GiB", "prune"),
    "few inodes": (
        good(rooms=[FreeRoom("/r", "ext4", 50 * GIB, 99 * GIB, 1, 100)]), WARN, "/r", "1 of 100", "prune",
    ),
    "few files": (good(files=4096), WARN, "limits", "4096 open files", "LimitNOFILE"),
    "few threads": (good(threads=1000), WARN, "limits", "1000 threads", "threads-max"),
    "the clock": (good(clock_synchronised=False), NOTE, "clock", "not synchronised", "chrony"),
    "SELinux": (good(selinux_enforcing=True), WARN, "SELinux", "enforcing", "setenforce"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_found(case: str) -> None:
    facts, level, about, what, do = CASES[case]
    (found,) = [one for one in checks.findings(facts) if one.level is not Level.OK]
    assert (found.level, found.about) == (level, about)
    assert what in found.what and do in found.do
    assert found.follows


def test_nothing_is_found_on_a_good_host() -> None:
    assert {one.level for one in checks.findings(GOOD)} == {Level.OK}
    text = report.text(checks.findings(GOOD))
    assert text == (
        "ok       kernel 6.1.0, cgroups version 2, conmon 2.1.6, crun 1.8.1\n"
        "0 problems, 0 warnings, 0 notes\n"
    )


def test_the_worst_comes_first() -> None:
    facts = good(programs=without("conmon"), clock_synchronised=False, nameservers=[])
    found = checks.findings(facts)
    assert [one.level for one in found][:3] == [BAD, WARN, NOTE]
    assert report.text(found).startswith(
        "problem  conmon: not found\n"
        "         -> containers do not start\n"
        "         do: install package conmon\n"
    )


def test_packages_that_fix_installs() -> None:
    facts = good(programs={}, nft_error="no library")
    wanted = ["conmon", "crun", "git", "libnftables1", "mmdebstrap"]
    assert mending.packages(checks.findings(facts)) == wanted
