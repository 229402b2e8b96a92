"""The daemon, conmon or a container dies at the worst moment; disks are full. Nothing may be left behind."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel

DYING = str(Path(__file__).parent / "dying_daemon.py")
BODY = {
    "Image": "busybox",
    "Cmd": ["sleep", "1000"],
    "HostConfig": {"Binds": ["/data"], "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
}
START_STEPS = [
    "wherry.engine.containers.bundle:prepare",
    "wherry.linux.mounts:mount",
    "wherry.engine.mounts.sources:MountSources.prepare",
    "wherry.engine.containers.bundle:write_etc_files",
    "wherry.engine.containers.etcfiles:add_addresses",
    "wherry.network.sandboxes:SandboxManager.create",
    "wherry.network.sandboxes:SandboxManager._record",
    "wherry.network.firewall:Firewall.change",
    "wherry.runtime.task:Runtime.create",
    "wherry.runtime.monitor:_launched",
    "wherry.runtime.monitor:Monitor.go",
    "wherry.runtime.monitor:_read_sync",
    "wherry.runtime.task:Runtime.start",
    "wherry.runtime.crun:let_run",
    "wherry.state.containers:Containers.set_state",
    "wherry.engine.events:EventBus.publish",
]
CREATE_STEPS = [
    "wherry.storage.drivers.directories:DirectorySnapshotter.prepare",
    "wherry.volumes.store:VolumeStore.create",
    "wherry.state.volumes:Volumes.insert",
    "wherry.engine.mounts.holds:Holds.take",
    "wherry.state.containers:Containers.insert",
]
REMOVE_STEPS = [
    "wherry.runtime.task:Runtime.delete",
    "wherry.runtime.crun:forget",
    "wherry.engine.containers.bundle:let_go",
    "wherry.engine.containers.bundle:release",
    "wherry.network.sandboxes:SandboxManager.delete",
    "wherry.state.containers:Containers.set_state",
    "wherry.state.containers:Containers.delete",
    "wherry.engine.mounts.holds:Holds.forget",
    "wherry.volumes.store:VolumeStore.release_last",
    "wherry.engine.mounts.holds:Holds.clean",
    "wherry.volumes.store:VolumeStore.remove_data",
    "wherry.storage.drivers.directories:DirectorySnapshotter.remove",
]


@pytest.fixture(scope="module")
def victim() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.program = [sys.executable, "-m", "wherry.daemon.entry"]
        daemon.destroy()


def lasting(daemon: LabDaemon) -> set[str]:
    """Traces that another process of the daemon has as well."""
    return {t for t in daemon.traces() if not t.startswith("descriptors")}


@contextlib.contextmanager
def dies(daemon: LabDaemon, target: str, when: str, before: tuple[str, ...] = ()) -> Iterator[None]:
    """The block runs against a daemon that dies in it; afterwards a sound one runs on the same root."""
    armed = daemon.base / "armed"
    armed.unlink(missing_ok=True)
    sound = daemon.program
    daemon.end()
    daemon.program = [sys.executable, DYING, target, when, str(armed)]
    try:
        daemon.start()
        yield
        assert daemon.process is not None
        assert daemon.process.wait(patiently(20)) == -signal.SIGKILL, f"{target} was never reached"
    finally:
        armed.unlink(missing_ok=True)
        daemon.program = sound
        daemon.end(signal.SIGKILL)
        daemon.start()


def deadly_call(daemon: LabDaemon, method: str, path: str, body: object = None) -> None:
    (daemon.base / "armed").touch()
    with contextlib.suppress(OSError, http.client.HTTPException):
        daemon.api(method, path, body)


def settled(daemon: LabDaemon, before: set[str]) -> None:
    daemon.remove_containers()
    for volume in daemon.volumes():
        daemon.api("DELETE", f"/volumes/{volume}")
    try:
        wait_until(lambda: lasting(daemon) == before)
    except AssertionError:
        after = lasting(daemon)
        pytest.fail(f"left behind: {sorted(after - before)}, lost: {sorted(before - after)}")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("target", START_STEPS)
def test_killed_in_a_start(victim: LabDaemon, target: str, when: str) -> None:
    before = lasting(victim)
    with dies(victim, target, when):
        identifier = victim.api("POST", "/containers/create", BODY).json["Id"]
        deadly_call(victim, "POST", f"/containers/{identifier}/start")
    status = victim.state_of(identifier)["Status"]
    assert status in ("created", "running"), status
    if status == "created":
        assert victim.api("POST", f"/containers/{identifier}/start").status == 204
    assert victim.docker("exec", identifier, "echo", "ok").ok() == "ok"
    settled(victim, before)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("target", CREATE_STEPS)
def test_killed_in_a_creation(victim: LabDaemon, target: str, when: str) -> None:
    before = lasting(victim)
    with dies(victim, target, when):
        deadly_call(victim, "POST", "/containers/create?name=half", BODY)
    assert victim.api("POST", "/containers/create?name=other", BODY).status == 201
    settled(victim, before)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("target", REMOVE_STEPS)
def test_killed_in_a_removal(victim: LabDaemon, target: str, when: str) -> None:
    before = lasting(victim)
    with dies(victim, target, when):
        identifier = victim.api("POST", "/containers/create", BODY).json["Id"]
        assert victim.api("POST", f"/containers/{identifier}/start").status == 204
        deadly_call(victim, "DELETE", f"/containers/{identifier}?force=1&v=1")
    settled(victim, before)


# ---- others die ------------------------------------------------------------------------------------------


def conmon_of(daemon: LabDaemon) -> int:
    return next(p for p in daemon.processes() if b"conmon" in Path(f"/proc/{p}/cmdline").read_bytes())


def test_conmon_killed(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    pid = daemon.pid_of(name)
    os.kill(conmon_of(daemon), signal.SIGKILL)
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    assert daemon.state_of(name)["ExitCode"] == 255
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    daemon.docker("start", name).ok()
    assert daemon.docker("exec", name, "true").code == 0


def test_conmon_killed_while_a_client_is_attached(daemon: LabDaemon, name: str) -> None:
    with daemon.docker_process(
        "run", "--name", name, "busybox", "sh", "-c", "echo up; sleep 1000"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(conmon_of(daemon), signal.SIGKILL)
        assert process.wait(patiently(10)) == 255


def test_killed_while_it_starts(daemon: LabDaemon) -> None:
    """Whatever wins the race, both calls are answered and nothing stays."""
    for _ in range(5):
        identifier = daemon.api("POST", "/containers/create", BODY).json["Id"]
        with daemon.docker_process("start", identifier) as start:
            kill = daemon.docker("kill", identifier)
            assert start.wait(patiently(20)) in (0, 1)
            assert kill.code in (0, 1)
        daemon.api("POST", f"/containers/{identifier}/kill")
        assert daemon.docker("wait", identifier).ok() == "137"
        daemon.docker("rm", "-v", identifier).ok()


def test_removed_while_it_starts(daemon: LabDaemon) -> None:
    for _ in range(5):
        identifier = daemon.api("POST", "/containers/create", BODY).json["Id"]
        with daemon.docker_process("start", identifier) as start:
            wait_until(lambda i=identifier: daemon.docker("rm", "-fv", i).code in (0, 1))
            start.wait(patiently(20))
        assert daemon.api("GET", f"/containers/{identifier}/json").status == 404


# ---- hostile images --------------------------------------------------------------------------------------


def layer(**entries: bytes | tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = path
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def imported(daemon: LabDaemon, content: bytes, *changes: str) -> str:
    query = "".join(f"&changes={c.replace(' ', '%20')}" for c in changes)
    answer = daemon.api(
        "POST", f"/images/create?fromSrc=-{query}", content, headers={"Content-Type": "application/x-tar"}
    )
    assert answer.status == 200, answer.body
    identifier: str = answer.lines[-1]["status"]
    return identifier


BUSYBOX = Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("WORKDIR /proc/self/fd/7", "invalid working directory"),
        ("WORKDIR /proc/self/cwd/../../etc", "working directory"),
        ("USER 4294967296", "uids and gids must be in range"),
        ("USER -1", "uids and gids must be in range"),
        ("VOLUME ../../etc", "must be absolute"),
        ("VOLUME /", "destination can't be '/'"),
        ("USER 7:none-such", "unable to find group"),
    ],
)
def test_hostile_image_configurations(daemon: LabDaemon, change: str, words: str) -> None:
    image = imported(daemon, layer(**{"bin/sh": BUSYBOX}), change, 'CMD ["/bin/sh","-c","pwd"]')
    done = daemon.docker("run", "--rm", image)
    assert done.code == 125
    assert words in done.errors


def test_hostile_account_files(daemon: LabDaemon) -> None:
    fifo = tarfile.TarInfo()
    fifo.type = tarfile.FIFOTYPE
    image = imported(daemon, layer(**{"bin/sh": BUSYBOX, "etc/passwd": fifo}))
    assert daemon.docker("run", "--rm", "-u", "7", image, "/bin/sh", "-c", "exit 3").code == 3
    assert daemon.docker("run", "--rm", "-u", "name", image, "/bin/sh").code == 125
    huge = b"".join(b"group%d:x:%d:root\n" % (n, n) for n in range(400_000))
    image = imported(
        daemon, layer(**{"bin/sh": BUSYBOX, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "etc/group": huge})
    )
    done = daemon.docker("run", "--rm", image, "/bin/sh", "-c", "exit 4")
    assert done.code in (4, 125)
    assert done.code == 4 or "larger than" in done.errors


def test_links_out_of_the_root_are_not_followed(daemon: LabDaemon, tmp_path: Path) -> None:
    """The engine's own files in /etc go where the container's root says, never to the host's."""
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    passwd = tarfile.TarInfo()
    passwd.type, passwd.linkname = tarfile.SYMTYPE, "../../../../../../etc/shadow"
    image = imported(daemon, layer(**{"bin/sh": BUSYBOX, "etc": link, "work": link}))
    daemon.docker("run", "--rm", "-w", "/work/below", "-v", "/work/vol", image, "/bin/sh", "-c", "true")
    assert list(tmp_path.iterdir()) == []
    image = imported(daemon, layer(**{"bin/sh": BUSYBOX, "etc/passwd": passwd}))
    assert daemon.docker("run", "--rm", "-u", "root", image, "/bin/sh", "-c", "id").code == 125


# ---- a full disk -----------------------------------------------------------------------------------------


@pytest.fixture(params=["overlay", "vfs"])
def small_disk(request: pytest.FixtureRequest) -> Iterator[LabDaemon]:
    base = new_base()
    (base / "r").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", str(base / "r")], check=True)
    daemon = LabDaemon(base, "--storage-driver", request.param)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        try:
            (daemon.root / "filler").unlink(missing_ok=True)
            daemon.destroy()
        finally:
            subprocess.run(["umount", "-l", str(base / "r")], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", str(base)], check=True)


def fill(daemon: LabDaemon) -> None:
    with contextlib.suppress(OSError), (daemon.root / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk(small_disk: LabDaemon) -> None:
    daemon = small_disk
    ready = daemon.api("POST", "/containers/create", BODY).json["Id"]
    running = daemon.docker("run", "-d", "busybox", "sleep", "1000").ok()
    # conmon's own child, which ends a moment after the start was answered
    wait_until(lambda: not any(re.match(r"process \d+: \S*/crun ", line) for line in lasting(daemon)))
    before = lasting(daemon)
    fill(daemon)
    for _ in range(3):
        created = daemon.api("POST", "/containers/create", BODY)
        if created.status == 201:
            daemon.api("DELETE", f"/containers/{created.json['Id']}?v=1")
        else:
            assert created.status in (500, 503)
            assert "o space left" in created.message or "full" in created.message
        started = daemon.api("POST", f"/containers/{ready}/start")
        if started.status == 204:
            daemon.api("POST", f"/containers/{ready}/kill")
        else:
            assert "o space left" in started.message or "full" in started.message, started.message
    big = layer(big=os.urandom(30 << 20))
    loaded = daemon.api(
        "POST", "/images/create?fromSrc=-", big, headers={"Content-Type": "application/x-tar"}
    )
    assert b"o space left" in loaded.body or b"full" in loaded.body, loaded.body
    assert daemon.api("GET", "/_ping").status == 200
    (daemon.root / "filler").unlink()
    wait_until(lambda: daemon.state_of(ready)["Status"] in ("created", "exited"))
    try:
        wait_until(lambda: lasting(daemon) == before, timeout=20)
    except AssertionError:
        pytest.fail(f"left behind or lost: {sorted(lasting(daemon) ^ before)}")
    assert daemon.docker("exec", running, "true").code == 0
    assert daemon.docker("run", "--rm", "busybox", "echo", "fine").ok() == "fine"
    daemon.restart()
    assert daemon.docker("run", "--rm", "busybox", "echo", "fine").ok() == "fine"


def test_exit_and_removal_on_a_full_disk(small_disk: LabDaemon) -> None:
    daemon = small_disk
    before = lasting(daemon)
    running = daemon.docker("run", "-d", "busybox", "sleep", "1000").ok()
    fill(daemon)
    killed = daemon.api("POST", f"/containers/{running}/kill")
    assert killed.status == 204, killed.body
    wait_until(lambda: not daemon.state_of(running)["Running"])
    daemon.api("DELETE", f"/containers/{running}?force=1")
    (daemon.root / "filler").unlink()
    daemon.api("DELETE", f"/containers/{running}?force=1")
    wait_until(lambda: lasting(daemon) == before)


def test_commit_on_a_full_disk(small_disk: LabDaemon, name: str) -> None:
    daemon = small_disk
    daemon.docker(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "head -c 1m /dev/urandom > /f; sleep 1000"
    ).ok()
    wait_until(lambda: daemon.docker("exec", name, "sh", "-c", "wc -c < /f").out == str(1 << 20))
    before, images = lasting(daemon), daemon.images()
    fill(daemon)
    answer = daemon.api("POST", f"/commit?container={name}&repo=full", {})
    assert answer.status in (500, 503), answer.body
    assert "o space left" in answer.message or "full" in answer.message, answer.message
    assert (daemon.images(), daemon.tags()) == (images, {"busybox:latest"})
    assert daemon.docker("exec", name, "true").code == 0  # not frozen
    (daemon.root / "filler").unlink()
    assert lasting(daemon) == before
    assert daemon.docker("commit", name, "full:1").code == 0
    assert daemon.docker("run", "--rm", "full:1", "sh", "-c", "wc -c < /f").ok() == str(1 << 20)


def alive(pid: int) -> bool:
    """Whether it runs; a zombie that its parent has not asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_orphans_without_a_runtime_directory_are_ended(victim: LabDaemon, name: str) -> None:
    """Somebody cleared /run while the daemon was away: nothing can be adopted, and nothing may run on."""
    victim.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "sleep 1000 & sleep 1000").ok()
    pid = victim.pid_of(name)
    full = victim.api("GET", f"/containers/{name}/json").json["Id"]
    victim.end(signal.SIGKILL)
    task = victim.run / "tasks" / full
    os.kill(int((task / "conmon.pid").read_text()), signal.SIGKILL)
    subprocess.run(["umount", "-l", str(task / "rootfs")], check=True)
    subprocess.run(["rm", "-rf", str(task), str(victim.run / "runtime" / "crun" / full)], check=True)
    assert os.path.exists(f"/proc/{pid}")
    victim.start()
    wait_until(lambda: not alive(pid), "the orphan to end")
    state = victim.state_of(name)
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    assert "ended 2 orphan processes" in victim.log or "orphan processes" in victim.log
    assert not [c for c in victim._cgroup_directories() if c.name == full]
    victim.docker("start", name).ok()
    victim.docker("rm", "-f", name).ok()
