"""What a container keeps of another one is that one's id: names move, and take nothing with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

SLEEP = ("busybox", "sleep", "1000")


def of_network(daemon: LabDaemon, container: str) -> str:
    return daemon.docker("exec", container, "readlink", "/proc/self/ns/net").ok()


def of_ipc(daemon: LabDaemon, container: str) -> str:
    return daemon.docker("exec", container, "readlink", "/proc/self/ns/ipc").ok()


def of_pid(daemon: LabDaemon, container: str) -> str:
    return daemon.docker("exec", container, "readlink", "/proc/self/ns/pid").ok()


KINDS: dict[str, tuple[str, Callable[[LabDaemon, str], str]]] = {
    "NetworkMode": ("--network", of_network),
    "IpcMode": ("--ipc", of_ipc),
    "PidMode": ("--pid", of_pid),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("key", list(KINDS))
def test_a_joined_container_stays_the_same(mortal: LabDaemon, name: str, key: str, restarted: bool) -> None:
    """Its name goes to another one, and the next start joins the first, as does one after a restart of the
    daemon."""
    flag, namespace = KINDS[key]
    first = mortal.docker("run", "-d", "--name", name, "--ipc=shareable", *SLEEP).ok()
    joiner = mortal.docker("run", "-d", flag, f"container:{name}", *SLEEP).ok()
    assert mortal.docker("inspect", "-f", f"{{{{.HostConfig.{key}}}}}", joiner).ok() == f"container:{first}"
    mortal.docker("rename", name, f"{name}-before").ok()
    second = mortal.docker("run", "-d", "--name", name, "--ipc=shareable", *SLEEP).ok()
    if restarted:
        mortal.restart()
    mortal.docker("restart", "-t", "0", joiner).ok()
    assert namespace(mortal, joiner) == namespace(mortal, first) != namespace(mortal, second)
    mortal.docker("rm", "-f", first).ok()
    mortal.docker("stop", "-t", "0", joiner).ok()
    gone = mortal.docker("start", joiner)
    assert gone.code != 0 and f"No such container: {first}" in gone.errors


@pytest.mark.parametrize("key", list(KINDS))
def test_an_id_is_nobodys_name(daemon: LabDaemon, name: str, key: str) -> None:
    """A container that is called like the id of one that is gone is not that one."""
    flag, _ = KINDS[key]
    first = daemon.docker("run", "-d", "--name", name, "--ipc=shareable", *SLEEP).ok()
    joiner = daemon.docker("create", flag, f"container:{first[:12]}", *SLEEP).ok()
    daemon.docker("rm", "-f", first).ok()
    daemon.docker("run", "-d", "--name", first, "--ipc=shareable", *SLEEP).ok()
    gone = daemon.docker("start", joiner)
    assert gone.code != 0 and f"No such container: {first}" in gone.errors


def test_links_and_volumes_stay_with_their_containers(daemon: LabDaemon, name: str) -> None:
    script = "echo $1 > /v/who; sleep 1000"
    start = ("run", "-d", "--name", name, "-v", "/v", "busybox", "sh", "-c", script, "sh")
    first = daemon.docker(*start, "first").ok()
    linked = daemon.docker("create", "--link", f"{name}:db", "--volumes-from", name, *SLEEP).ok()
    daemon.docker("rename", name, f"{name}-before").ok()
    second = daemon.docker(*start, "second").ok()
    daemon.docker("start", linked).ok()
    address = "{{.NetworkSettings.IPAddress}}"
    hosts = daemon.docker("exec", linked, "cat", "/etc/hosts").ok()
    assert f"{daemon.docker('inspect', '-f', address, first).ok()}\tdb" in hosts
    assert f"{daemon.docker('inspect', '-f', address, second).ok()}\t" not in hosts
    assert daemon.docker("exec", linked, "cat", "/v/who").ok() == "first"
