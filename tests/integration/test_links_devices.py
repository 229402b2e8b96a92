"""Links of the default bridge, devices that vendors describe, real-time scheduling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until

pytestmark = pytest.mark.kernel


def inside(daemon: LabDaemon, container: str, script: str) -> str:
    return daemon.docker("exec", container, "sh", "-c", script).ok()


def names(daemon: LabDaemon) -> set[str]:
    return {n for c in daemon.api("GET", "/containers/json", all=1).json for n in c["Names"]}


@pytest.fixture
def linked(daemon: LabDaemon, name: str) -> tuple[str, str]:
    db, web = f"{name}-db", f"{name}-web"
    run = ("run", "-d", "--name")
    daemon.docker(*run, db, "--expose", "5432", "-e", "PASS=x", "busybox", "sleep", "1000").ok()
    daemon.docker(*run, web, "--link", f"{db}:data-base", "busybox", "sleep", "1000").ok()
    return db, web


def test_the_linked_container_is_found_by_its_alias(daemon: LabDaemon, linked: tuple[str, str]) -> None:
    db, web = linked
    assert inside(daemon, web, "ping -c 1 -W 2 data-base >/dev/null; ping -c 1 -W 2 " + db)
    env = dict(
        line.split("=", 1) for line in inside(daemon, web, "tr '\\0' '\\n' < /proc/1/environ").split("\n")
    )
    address = env["DATA_BASE_PORT_5432_TCP_ADDR"]
    assert env["DATA_BASE_PORT"] == f"tcp://{address}:5432"
    assert (env["DATA_BASE_ENV_PASS"], env["DATA_BASE_NAME"]) == ("x", f"/{web}/data-base")
    assert f"/{web}/data-base" in names(daemon)
    document = daemon.api("GET", f"/containers/{web}/json").json
    assert document["HostConfig"]["Links"] == [f"/{db}:/{web}/data-base"]


def test_another_address_is_told(daemon: LabDaemon, linked: tuple[str, str], name: str) -> None:
    db, web = linked
    before = inside(daemon, web, "grep data-base /etc/hosts")
    daemon.docker("run", "-d", "--name", f"{name}-x", "busybox", "sleep", "1000").ok()
    daemon.docker("restart", "-t", "0", db).ok()
    wait_until(lambda: inside(daemon, web, "grep data-base /etc/hosts") != before)
    assert inside(daemon, web, "ping -c 1 -W 2 data-base")


def test_a_link_can_be_taken_back(daemon: LabDaemon, linked: tuple[str, str]) -> None:
    db, web = linked
    daemon.docker("rm", "--link", f"/{web}/data-base").ok()
    assert inside(daemon, web, "grep -c data-base /etc/hosts; true") == "0"
    assert names(daemon) == {f"/{db}", f"/{web}"}
    assert daemon.docker("rm", "--link", f"/{web}/data-base").code == 1
    assert daemon.api("DELETE", f"/containers/{web}/data-base").status == 404


def test_links_survive_the_daemon_and_a_rename(daemon: LabDaemon, linked: tuple[str, str]) -> None:
    db, web = linked
    daemon.docker("rename", db, f"{db}-new").ok()
    daemon.restart(9)
    assert f"/{web}/data-base" in names(daemon)
    daemon.docker("restart", "-t", "0", web).ok()
    assert inside(daemon, web, "ping -c 1 -W 2 data-base")


def test_what_cannot_be_linked(daemon: LabDaemon, linked: tuple[str, str]) -> None:
    db = linked[0]
    run = ("run", "--rm", "--link")
    daemon.docker("stop", "-t", "0", db).ok()
    done = daemon.docker(*run, db, "busybox", "true")
    assert "Cannot link to a non running container" in done.errors
    assert "could not get container for nobody" in daemon.docker(*run, "nobody", "busybox", "true").errors
    done = daemon.docker(*run, db, "--network", "host", "busybox", "true")
    assert "links" in done.errors
    done = daemon.docker(*run, f"{db}:a b", "busybox", "true")
    assert "bad format for links" in done.errors


def test_a_link_to_a_container_in_anothers_namespace(daemon: LabDaemon, name: str) -> None:
    pod, side, web, host = (f"{name}-{part}" for part in ("pod", "side", "web", "host"))
    run = ("run", "-d", "--name")
    daemon.docker(*run, pod, "busybox", "sleep", "1000").ok()
    daemon.docker(*run, side, "--network", f"container:{pod}", "busybox", "sleep", "1000").ok()
    daemon.docker(*run, web, "--link", f"{side}:db", "busybox", "sleep", "1000").ok()
    address = inside(daemon, pod, "hostname -i")
    assert f"{address}\tdb" in inside(daemon, web, "cat /etc/hosts")
    daemon.docker(*run, host, "--network", "host", "busybox", "sleep", "1000").ok()
    refused = daemon.docker("run", "--rm", "--link", host, "busybox", "true")
    words = "host type networking can't be used with links. This would result in undefined behavior"
    assert f"conflicting options: {words}" in refused.errors


def test_a_link_on_a_network_of_ones_own_may_come_first(daemon: LabDaemon, name: str) -> None:
    net, web, db = f"{name}-net", f"{name}-web", f"{name}-db"
    daemon.docker("network", "create", net).ok()
    run = ("run", "-d", "--network", net, "--name")
    daemon.docker(*run, web, "--link", f"{db}:store", "busybox", "sleep", "1000").ok()
    assert daemon.docker("exec", web, "nslookup", "store").code != 0
    daemon.docker(*run, db, "busybox", "sleep", "1000").ok()
    assert "1 packets received" in inside(daemon, web, "ping -c1 store")


def test_the_namespace_of_another_has_no_ports_of_ones_own(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    for flag, what in (("--expose=80", "exposing"), ("-p=80", "publishing")):
        refused = daemon.docker("run", "--rm", "--net", f"container:{name}", flag, "busybox", "true")
        assert f"conflicting options: port {what} and the container type network mode" in refused.errors


# ---- devices that vendors describe -----------------------------------------------------------------------


_REALTIME = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()


@pytest.fixture(scope="module")
def with_devices() -> Iterator[LabDaemon]:
    base = new_base()
    specs = base / "cdi"
    specs.mkdir()
    hook = base / "hook"
    hook.write_text(f"#!/bin/sh\ncat > {base}/hooked\n")
    hook.chmod(0o755)
    edits = {
        "env": ["CDI=yes"],
        "deviceNodes": [{"path": "/dev/cdi0", "hostPath": "/dev/fuse"}],
        "mounts": [{"hostPath": str(specs), "containerPath": "/specs", "options": ["ro", "rbind"]}],
        "hooks": [{"hookName": "createRuntime", "path": str(hook)}],
    }
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": edits}],
    }
    (specs / "a.json").write_text(json.dumps(spec))
    realtime = ("--cpu-rt-runtime", "2000") if _REALTIME else ()
    daemon = LabDaemon(base, "--cdi-spec-dir", str(specs), *realtime)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.mark.parametrize("flags", [("--gpus", "all"), ("--device", "nvidia.com/gpu=0")])
def test_a_described_device(with_devices: LabDaemon, flags: tuple[str, str]) -> None:
    script = "echo $CDI; ls /specs; : < /dev/cdi0 && echo opened"
    out = with_devices.docker("run", "--rm", *flags, "busybox", "sh", "-c", script).ok()
    assert out.split() == ["yes", "a.json", "opened"]
    hooked = json.loads((with_devices.base / "hooked").read_text())
    assert hooked["ociVersion"]


def test_info_names_them(with_devices: LabDaemon) -> None:
    info = with_devices.api("GET", "/info").json
    assert info["CDISpecDirs"] == [str(with_devices.base / "cdi")]
    assert info["DiscoveredDevices"] == [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]


def test_devices_that_are_not_there(with_devices: LabDaemon) -> None:
    done = with_devices.docker("run", "--rm", "--device", "some.com/thing=one", "busybox", "true")
    assert "unresolvable CDI devices some.com/thing=one" in done.errors
    assert "cannot give 3 GPUs" in with_devices.docker("run", "--rm", "--gpus", "3", "busybox", "true").errors
    assert with_devices.containers() == []


@pytest.mark.skipif(_REALTIME, reason="this kernel has real-time group scheduling")
def test_a_share_of_real_time_that_cannot_be_is_refused() -> None:
    daemon = LabDaemon(new_base(), "--cpu-rt-runtime", "2000")
    try:
        with pytest.raises(AssertionError, match="the daemon ended"):
            daemon.start()
        assert "this kernel has no real-time group scheduling" in daemon.log
    finally:
        daemon.destroy()


@pytest.mark.skipif(not _REALTIME, reason="no real-time group scheduling")
def test_real_time_scheduling_from_the_daemons_share(with_devices: LabDaemon) -> None:
    run = ("run", "--rm", "--cpu-rt-runtime")
    read = "cat /sys/fs/cgroup/cpu/cpu.rt_runtime_us"
    assert with_devices.docker(*run, "1500", "busybox", "sh", "-c", read).ok() == "1500"
    done = with_devices.docker(*run, "5000", "busybox", "true")
    assert "has 2000 (daemon flag --cpu-rt-runtime)" in done.errors


def test_what_this_host_cannot_do_is_said(with_devices: LabDaemon) -> None:
    run = ("run", "--rm")
    done = with_devices.docker(*run, "--cpuset-cpus", "0-900", "busybox", "true")
    assert "Requested CPUs are not available" in done.errors
    done = with_devices.docker(*run, "--storage-opt", "size=1G", "busybox", "true")
    assert done.code == 125 and "--storage-opt size" in done.errors
    if not Path("/sys/fs/cgroup/blkio").exists():
        return
    done = with_devices.docker(*run, "--blkio-weight", "300", "busybox", "echo", "ran")
    assert done.ok() == "ran"
