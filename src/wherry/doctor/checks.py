"""What follows from the facts. Every check is a pure function from :class:`HostFacts` to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wherry.doctor.findings import Finding, Level
from wherry.doctor.host import HostFacts

Check = Callable[[HostFacts], Iterator[Finding]]

KERNEL = (5, 12)
"""Idmapped mounts (mount_setattr(2)); openat2(2) and pidfds are older."""
CONMON, CRUN, RUNC = (2, 0), (0, 16), (1, 0)
_CONTROLLERS = {
    "memory": "memory limits (-m) are refused",
    "pids": "process limits (--pids-limit) are refused",
    "cpu": "processor limits (--cpus) are refused",
    "cpuset": "--cpuset-cpus is refused",
    "io": "--device-read-bps and the like are refused",
}
_NETWORK_KINDS = {
    "vxlan": ("overlay networks are refused", "vxlan"),
    "macvlan": ("macvlan networks are refused", "macvlan"),
    "ipvlan": ("ipvlan networks are refused", "ipvlan"),
    "vlan": ("macvlan and ipvlan on a VLAN (parent=eth0.7) are refused", "8021q"),
}
_GIB = 1 << 30


def rights(facts: HostFacts) -> Iterator[Finding]:
    if not facts.root_user:
        yield Finding(
            Level.PROBLEM, "user", "not root", "the daemon does not start, and some checks say nothing",
            "run it as root (sudo)",
        )  # fmt: skip


def kernel(facts: HostFacts) -> Iterator[Finding]:
    shown = ".".join(map(str, facts.kernel))
    if facts.kernel and facts.kernel < KERNEL:
        wanted = ".".join(map(str, KERNEL))
        yield Finding(
            Level.PROBLEM, "kernel", f"{shown} is older than {wanted}", "containers do not start",
            "boot a newer kernel",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, "kernel", shown)
    if "overlay" not in facts.filesystems:
        yield Finding(
            Level.WARNING, "overlayfs", "the kernel does not have it",
            "layers are copied (storage driver vfs), which is slow and takes much room", "modprobe overlay",
        )  # fmt: skip
    if not facts.seccomp:
        yield Finding(
            Level.WARNING, "seccomp", "the kernel does not have it",
            "containers may make every system call", "boot a kernel with CONFIG_SECCOMP_FILTER",
        )  # fmt: skip
    if not facts.user_namespaces:
        yield Finding(
            Level.NOTE, "user namespaces", "they are off", "mounts with owner=match are refused",
            "sysctl user.max_user_namespaces=15000",
        )  # fmt: skip
    if not facts.apparmor:
        yield Finding(Level.NOTE, "AppArmor", "it is off", "no profile confines containers")
    if facts.selinux_enforcing:
        yield Finding(
            Level.WARNING, "SELinux", "it is enforcing, and wherry sets no labels",
            "containers run with the daemon's label, or are refused", "setenforce 0, or a policy of your own",
        )  # fmt: skip


def groups(facts: HostFacts) -> Iterator[Finding]:
    known = facts.controllers | ({"io"} if "blkio" in facts.controllers else frozenset())
    for name, follows in _CONTROLLERS.items():
        if name not in known:
            yield Finding(
                Level.WARNING, "cgroups", f"controller {name} is not there", follows,
                f"boot with cgroup_enable={name}",
            )  # fmt: skip
    if facts.cgroup_version == 1:
        yield Finding(
            Level.NOTE, "cgroups", "version 1 or hybrid", "some limits are less exact",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, "cgroups", "version 2")


def programs(facts: HostFacts) -> Iterator[Finding]:
    yield from _program(facts, "conmon", CONMON, "containers do not start")
    if "crun" not in facts.programs and "runc" in facts.programs:
        yield from _program(facts, "runc", RUNC, "containers do not start")
        yield Finding(
            Level.NOTE, "crun", "not found", "runc is used, which starts containers more slowly",
            "install package crun",
        )  # fmt: skip
    else:
        yield from _program(facts, "crun", CRUN, "containers do not start")
    for name, follows in (
        ("git", "builds from git repositories are refused"),
        ("mmdebstrap", "image bootstrap of Debian's images is refused"),
    ):
        if name not in facts.programs:
            yield Finding(Level.NOTE, name, "not found", follows, f"install package {name}")


def _program(facts: HostFacts, name: str, least: tuple[int, ...], follows: str) -> Iterator[Finding]:
    found = facts.programs.get(name)
    if found is None:
        yield Finding(Level.PROBLEM, name, "not found", follows, f"install package {name}")
    elif found.version and found.version < least:
        shown, wanted = (".".join(map(str, v)) for v in (found.version, least))
        yield Finding(
            Level.PROBLEM, name, f"{shown} is older than {wanted}", follows, f"install a newer {name}"
        )
    else:
        yield Finding(Level.OK, name, ".".join(map(str, found.version)) or found.path)


def network(facts: HostFacts) -> Iterator[Finding]:
    if facts.nft_error:
        yield Finding(
            Level.PROBLEM, "nftables", facts.nft_error, "bridge networks and published ports do not work",
            "install package libnftables1; modprobe nf_tables",
        )  # fmt: skip
    if not facts.protocols:
        yield Finding(
            Level.PROBLEM, "/etc/protocols", "not found", "the daemon does not start: nftables needs it",
            "install package netbase",
        )  # fmt: skip
    for chain in facts.drops:
        yield Finding(
            Level.WARNING, "firewall", f"chain {chain} drops forwarded packets",
            "containers do not reach other hosts, and published ports are not reached from there",
            _allow(chain),
        )  # fmt: skip
    for kind in ("bridge", "veth"):
        if facts.links.get(kind) is False:
            yield Finding(
                Level.PROBLEM, "kernel", f"it cannot make {kind} interfaces",
                "only --network host and none work", f"modprobe {kind}",
            )  # fmt: skip
    for kind, (follows, module) in _NETWORK_KINDS.items():
        if facts.links.get(kind) is False:
            yield Finding(
                Level.NOTE, "kernel", f"it cannot make {kind} interfaces", follows, f"modprobe {module}"
            )
    if not facts.nameservers:
        yield Finding(
            Level.WARNING, "DNS", "/etc/resolv.conf names no server",
            "containers and pulls resolve no names of the internet", 'name some: "dns" in daemon.json',
        )  # fmt: skip


def _allow(chain: str) -> str:
    """What lets containers' packets through a chain of somebody else."""
    family, table, name = chain.split(" ", 2)
    if (family, table, name) == ("ip", "filter", "FORWARD"):
        return "ufw: ufw default allow routed; else iptables -I FORWARD -i wherry0 -j ACCEPT, and -o wherry0"
    return f"nft insert rule {family} {table} {name} iifname wherry0 accept, and the same with oifname"


def room(facts: HostFacts) -> Iterator[Finding]:
    for one in facts.rooms:
        if one.kind in ("nfs", "nfs4", "cifs", "fuse", "9p", "overlay"):
            yield Finding(
                Level.WARNING, one.path, f"on {one.kind}", "overlayfs does not work on it; layers are copied",
                "keep the root on ext4, xfs or btrfs (--root)",
            )  # fmt: skip
        if one.free < _GIB or one.free * 20 < one.size:
            yield Finding(
                Level.PROBLEM if one.free < 64 << 20 else Level.WARNING, one.path,
                f"{one.free / _GIB:.1f} GiB of {one.size / _GIB:.0f} GiB are free",
                "pulls, builds and writing containers fail soon", "wherry system df; wherry system prune",
            )  # fmt: skip
        if one.inodes and one.free_inodes * 20 < one.inodes:
            yield Finding(
                Level.WARNING, one.path, f"{one.free_inodes} of {one.inodes} inodes are free",
                "images with many files cannot be unpacked", "wherry system prune",
            )  # fmt: skip


def limits(facts: HostFacts) -> Iterator[Finding]:
    if facts.files < 65536:
        yield Finding(
            Level.WARNING, "limits", f"at most {facts.files} open files (hard limit)",
            "some hundred containers are the most", "LimitNOFILE=1048576 in the unit, or ulimit -Hn",
        )  # fmt: skip
    if facts.threads and facts.threads < 20000:
        yield Finding(
            Level.WARNING, "limits", f"at most {facts.threads} threads on this host",
            "containers with many processes cannot fork", "sysctl kernel.threads-max=100000",
        )  # fmt: skip
    if not facts.clock_synchronised:
        yield Finding(
            Level.NOTE, "clock", "it is not synchronised",
            "registries refuse certificates and tokens when it is far off",
            "keep it in step, by systemd-timesyncd or chrony",
        )  # fmt: skip


CHECKS: tuple[Check, ...] = (rights, kernel, groups, programs, network, room, limits)


def findings(facts: HostFacts) -> list[Finding]:
    """All of them, the worst first."""
    order = [Level.PROBLEM, Level.WARNING, Level.NOTE, Level.OK]
    found = [one for check in CHECKS for one in check(facts)]
    return sorted(found, key=lambda one: order.index(one.level))
