"""What there is on the host, in texts that can be compared."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

from patience import patiently

from wherry.network.types import Instance


def pids(cgroup: Path) -> list[int]:
    try:
        return [int(p) for p in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def counts(traces: set[str]) -> dict[str, int]:
    """Descriptors among the traces, by kind."""
    parts = (trace.removeprefix("descriptors ") for trace in traces if trace.startswith("descriptors "))
    return {kind: int(count) for kind, _, count in (part.rpartition(" ") for part in parts)}


def state(pid: int) -> str:
    """A process's state, as ``ps`` shows it; X where there is none (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """The processes that a process has started, by any of its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def fork_server(daemon: int) -> int | None:
    """The daemon's fork server, if it has one that has come up."""
    for pid in children(daemon):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            # Its standard error is a pipe until then.
            if b"forkserver_main" in words and os.readlink(f"/proc/{pid}/fd/2") == os.devnull:
                return pid
    return None


def links(instance: Instance) -> list[str]:
    names = []
    for entry in Path("/sys/class/net").iterdir():
        with contextlib.suppress(OSError):
            if (entry / "ifalias").read_text().startswith(instance.alias_prefix):
                names.append(entry.name)
    return names


def elements(table: str) -> set[str]:
    argv = ["nft", "-j", "list", "table", "inet", table]
    result = subprocess.run(argv, capture_output=True, timeout=patiently(30), check=False)
    if result.returncode:
        return set()
    found = set()
    for item in json.loads(result.stdout)["nftables"]:
        for kind in ("set", "map"):
            for element in item.get(kind, {}).get("elem", ()):
                found.add(f"{item[kind]['name']} {json.dumps(element, sort_keys=True)}")
    return found


_LOOPBACK6, _LISTENS = f"{0:024x}01000000:", "0A"
RELAY = "tcp6 that listens on ::1"
"""What carries ports published there: made with the first, and then kept."""


def sockets(pid: int) -> dict[str, str]:
    """What every socket of the process's network namespace is, by inode (proc_pid_net(5))."""
    found: dict[str, str] = {}
    for table in ("unix", "tcp", "tcp6", "udp", "udp6", "netlink", "raw", "packet"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if table == "unix":
                    found[words[6]] = " ".join([table, *words[7:8]])
                elif table in ("netlink", "packet"):
                    found[words[-1]] = f"{table} {words[1]}"
                elif table == "tcp6" and words[1].startswith(_LOOPBACK6) and words[3] == _LISTENS:
                    found[words[9]] = RELAY
                else:
                    found[words[9]] = table
    return found
