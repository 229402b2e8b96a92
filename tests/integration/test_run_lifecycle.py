"""Commands on containers that exist: ps and its filters, stop, kill, pause, rename, top, wait, races."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture
def box(daemon: LabDaemon, name: str) -> str:
    daemon.docker("run", "-d", "--name", name, "-l", "kind=box", "busybox", "sleep", "1000").ok()
    return name


def names(daemon: LabDaemon, *flags: str) -> set[str]:
    return set(daemon.docker("ps", "--format", "{{.Names}}", *flags).ok().split())


# ---- ps --------------------------------------------------------------------------------------------------


def test_ps(daemon: LabDaemon, box: str) -> None:
    ended = f"{box}-e"
    daemon.docker("run", "--name", ended, "-l", "kind=other", "busybox", "sh", "-c", "exit 3")
    assert names(daemon) == {box}
    assert names(daemon, "-a") == {box, ended}
    assert names(daemon, "-n", "1") == names(daemon, "-l") == {ended}
    line = daemon.docker("ps", "-a", "--no-trunc", "--filter", f"name={ended}").ok().splitlines()[1]
    assert "\"sh -c 'exit 3'\"" in line
    assert "Exited (3)" in line
    sized = daemon.docker("ps", "-s", "--format", "{{.Size}}").ok()
    assert "virtual" in sized
    row = json.loads(daemon.docker("ps", "--format", "json").ok())
    assert (row["Names"], row["State"], row["Image"], row["Networks"]) == (
        box,
        "running",
        "busybox",
        "bridge",
    )


def test_every_ps_filter(daemon: LabDaemon, box: str, name: str) -> None:
    old, new = box, f"{name}-n"
    flags = ("-p", "127.0.0.1::8080", "--expose", "9090", "-v", "/vol", "--network", "bridge")
    daemon.docker("run", "-d", "--name", new, *flags, "busybox", "sleep", "1000").ok()
    ended = f"{name}-e"
    daemon.docker("run", "--name", ended, "busybox", "sh", "-c", "exit 3")
    identifier = daemon.api("GET", f"/containers/{new}/json").json["Id"]
    published = daemon.docker("port", new, "8080").ok().rpartition(":")[2]
    everything = {old, new, ended}
    wanted = {
        "name=" + new: {new},
        f"name=^/{name}$": {old},
        "id=" + identifier[:12]: {new},
        "label=kind": {old},
        "label=kind=box": {old},
        "label=kind=x": set(),
        "status=exited": {ended},
        "status=running status=exited": everything,
        "exited=3": {ended},
        "exited=0": set(),
        "ancestor=busybox": everything,
        "ancestor=none-such": set(),
        "before=" + new: {old},
        "since=" + old: {new, ended},
        "volume=/vol": {new},
        "network=bridge": everything,
        "network=host": set(),
        f"publish={published}": {new},
        f"publish={published}-{published}/tcp": {new},
        f"publish={published}/udp": set(),
        "publish=8080": set(),
        "expose=9090": {new},
        "health=none": everything,
        "is-task=false": everything,
    }
    found = {one: names(daemon, "-a", *(a for f in one.split() for a in ("--filter", f))) for one in wanted}
    assert found == wanted
    for bad in ("status=odd", "exited=x", "health=odd", "nonsense=1", "publish=x"):
        assert daemon.docker("ps", "--filter", bad).code == 1, bad


# ---- running ---------------------------------------------------------------------------------------------


def test_create_start_attach_stop_restart_remove(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox", "sh", "-c", "echo up; exec sleep 1000").ok()
    assert daemon.state_of(name)["Status"] == "created"
    daemon.docker("start", name).ok()
    pid = daemon.pid_of(name)
    assert pid and daemon.docker("start", name).code == 0
    assert daemon.pid_of(name) == pid
    daemon.docker("restart", "-t", "0", name).ok()
    assert daemon.pid_of(name) != pid
    daemon.docker("stop", "-t", "0", name).ok()
    assert daemon.docker("stop", name).code == 0
    running = daemon.docker("start", name).ok()
    assert running == name
    refused = daemon.docker("rm", name)
    assert refused.code == 1
    assert "container is running: stop the container before removing or force remove" in refused.errors
    daemon.docker("rm", "-f", name).ok()
    gone = daemon.docker("start", name)
    assert gone.code == 1
    assert f"No such container: {name}" in gone.errors


def test_start_attached(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "-i", "--name", name, "busybox", "sh", "-c", "read x; echo got-$x; exit 4").ok()
    done = daemon.docker("start", "-ai", name, input=b"word\n")
    assert (done.code, done.out) == (4, "got-word")


def test_kill_with_a_signal(daemon: LabDaemon, name: str) -> None:
    script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.02; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    wait_until(lambda: "ready" in daemon.docker("logs", name).out)
    daemon.docker("kill", "-s", "HUP", name).ok()
    wait_until(lambda: "hup" in daemon.docker("logs", name).out)
    assert daemon.state_of(name)["Running"]
    assert daemon.docker("kill", "-s", "NOTHING", name).code == 1
    daemon.docker("kill", name).ok()
    again = daemon.docker("kill", name)
    assert again.code == 1
    assert "is not running" in again.errors


def test_pause(daemon: LabDaemon, box: str) -> None:
    daemon.docker("pause", box).ok()
    assert daemon.state_of(box)["Status"] == "paused"
    assert "(Paused)" in daemon.docker("ps", "--format", "{{.Status}}").ok()
    assert "is already paused" in daemon.docker("pause", box).errors
    daemon.docker("stop", "-t", "1", box).ok()
    assert daemon.state_of(box)["Status"] == "exited"
    assert daemon.docker("unpause", box).code == 1
    daemon.docker("start", box).ok()
    daemon.docker("pause", box).ok()
    daemon.docker("kill", box).ok()
    assert daemon.state_of(box)["ExitCode"] == 137


def test_rename(daemon: LabDaemon, box: str) -> None:
    daemon.docker("rename", box, f"{box}-2").ok()
    assert names(daemon) == {f"{box}-2"}
    daemon.docker("create", "--name", box, "busybox").ok()
    taken = daemon.docker("rename", box, f"{box}-2")
    assert taken.code == 1
    assert "is already in use by container" in taken.errors
    assert daemon.docker("rename", box, box).code == 1
    assert daemon.docker("rename", box, "bad/name").code == 1


def test_top(daemon: LabDaemon, box: str) -> None:
    lines = daemon.docker("top", box).ok().splitlines()
    assert lines[0].split()[:3] == ["UID", "PID", "PPID"]
    assert "sleep 1000" in lines[1] and len(lines) == 2
    assert daemon.docker("top", box, "-o", "pid,args").ok().splitlines()[1].split()[1:] == ["sleep", "1000"]
    assert daemon.docker("top", box, "-o", "args").code == 1
    assert daemon.docker("top", box, "--nonsense").code == 1
    daemon.docker("kill", box).ok()
    assert "is not running" in daemon.docker("top", box).errors


def test_wait_conditions(daemon: LabDaemon, box: str) -> None:
    with ThreadPoolExecutor() as pool:
        removed = pool.submit(daemon.api, "POST", f"/containers/{box}/wait?condition=removed")
        ended = pool.submit(daemon.api, "POST", f"/containers/{box}/wait?condition=next-exit")
        daemon.docker("kill", box).ok()
        assert ended.result(20).json["StatusCode"] == 137
        assert not removed.done()
        daemon.docker("rm", box).ok()
        assert removed.result(20).json["StatusCode"] == 137
    assert daemon.api("POST", f"/containers/{box}/wait").status == 404


def test_wait_refuses_odd_conditions(daemon: LabDaemon, box: str) -> None:
    assert daemon.api("POST", f"/containers/{box}/wait?condition=odd").status == 400


def test_inspect_and_formats(daemon: LabDaemon, box: str) -> None:
    short = daemon.docker("ps", "-q").ok()
    assert (
        daemon.docker("inspect", "--format", "{{.Name}} {{.State.Status}}", short).ok() == f"/{box} running"
    )
    whole = json.loads(daemon.docker("inspect", "-s", box).ok())[0]
    assert whole["SizeRw"] >= 0 and whole["SizeRootFs"] > 0
    assert whole["HostConfig"]["NetworkMode"] == "bridge"
    assert whole["Config"]["Cmd"] == ["sleep", "1000"]
    assert Path(whole["HostsPath"]).exists()


def test_container_prune(daemon: LabDaemon, box: str) -> None:
    daemon.docker("create", "--name", f"{box}-a", "-l", "keep", "busybox").ok()
    daemon.docker("create", "--name", f"{box}-b", "busybox").ok()
    daemon.docker("container", "prune", "-f", "--filter", "label!=keep").ok()
    assert names(daemon, "-a") == {box, f"{box}-a"}
    daemon.docker("container", "prune", "-f", "--filter", "until=1h").ok()
    assert names(daemon, "-a") == {box, f"{box}-a"}
    daemon.docker("container", "prune", "-f").ok()
    assert names(daemon, "-a") == {box}


# ---- namespaces of others --------------------------------------------------------------------------------


def test_networks_of_others(daemon: LabDaemon, box: str) -> None:
    own = daemon.docker("exec", box, "hostname").ok()
    joined = daemon.docker(
        "run", "--rm", "--network", f"container:{box}", "busybox", "sh", "-c", "hostname; ip a"
    )
    address = daemon.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", box).ok()
    assert joined.ok().split()[0] == own
    assert address in joined.out
    host = daemon.docker("run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net").ok().split()
    assert set(host) >= {"lo"} and len(host) > 1
    none = daemon.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").ok().split()
    assert none == ["lo"]
    daemon.docker("kill", box).ok()
    refused = daemon.docker("run", "--rm", "--network", f"container:{box}", "busybox", "true")
    assert refused.code == 125
    assert "cannot join network namespace of a non running container" in refused.errors


def test_pid_and_ipc_of_others(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "--ipc", "shareable", "busybox", "sleep", "1000").ok()
    daemon.docker("exec", name, "touch", "/dev/shm/mark").ok()
    out = daemon.docker("run", "--rm", "--ipc", f"container:{name}", "--pid", f"container:{name}", "busybox",
                        "sh", "-c", "ls /dev/shm; ps").ok()  # fmt: skip
    assert "mark" in out
    assert "sleep 1000" in out
    host = daemon.docker("run", "--rm", "--pid", "host", "busybox", "ps").ok()
    assert len(host.splitlines()) > 5


# ---- many at once ----------------------------------------------------------------------------------------


def test_forty_containers_by_eight_clients(daemon: LabDaemon) -> None:
    def one(number: int) -> int:
        return daemon.docker(
            "run", "--rm", "busybox", "sh", "-c", f"exit {number}", timeout=patiently(60)
        ).code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == list(range(40))
    assert daemon.containers() == []


def test_races_on_one_container(daemon: LabDaemon, name: str) -> None:
    """Every call is answered with a code that has a meaning, and the container ends up in a state."""
    daemon.docker("create", "--name", name, "busybox", "sleep", "1000").ok()
    seen: list[tuple[str, int, bytes]] = []
    barrier = threading.Barrier(6)

    def hammer(paths: list[str]) -> None:
        barrier.wait()
        for path in paths * 6:
            answer = daemon.api("POST", f"/containers/{name}/{path}")
            seen.append((path, answer.status, answer.body))

    jobs = [["start"], ["stop?t=0"], ["kill"], ["restart?t=0"], ["pause", "unpause"], ["start", "stop?t=0"]]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(hammer, paths) for paths in jobs]:
            future.result(60)
    assert [s for s in seen if s[1] not in (204, 304, 409)] == []
    final = daemon.state_of(name)
    assert final["Status"] in ("running", "exited", "paused")
    assert (final["Pid"] > 0) == (final["Status"] != "exited")
    daemon.docker("rm", "-f", name).ok()


def test_one_name_for_many(daemon: LabDaemon, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["/v"]}}
        answers = list(
            pool.map(lambda _: daemon.api("POST", f"/containers/create?name={name}", body), range(8))
        )
    assert sorted(a.status for a in answers) == [201] + [409] * 7
    assert len(daemon.containers()) == 1
    assert len(daemon.volumes()) == 1


def test_removals_at_once(daemon: LabDaemon, box: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: daemon.api("DELETE", f"/containers/{box}?force=1"), range(6)))
    assert {a.status for a in answers} <= {204, 404, 409}
    assert [a.status for a in answers].count(204) >= 1
    assert daemon.containers() == []
