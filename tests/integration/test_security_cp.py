"""cp against containers that fight back: whatever they do meanwhile, nothing of the host is read or written.

The attacker renames from outside of the container, through ``/proc/<pid>/root``: what it does to the
container's files is what a process within could do, only faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import hosttraces
import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

SLEEP = ("busybox", "sleep", "1000")
ROUNDS = 60
"""Of each direction."""
_CHILD = b"wherry.storage.confined.child.containerfiles"
_SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
at = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
one, other = sys.argv[2].encode(), sys.argv[3].encode()
print("ready", flush=True)
while libc.renameat2(at, one, at, other, 2) == 0:  # RENAME_EXCHANGE
    pass
sys.exit("it could not rename")
"""


@contextlib.contextmanager
def swapping(directory: Path, one: str, other: str) -> Iterator[None]:
    """Two names in a directory change places as fast as can be."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SWAP, str(directory), one, other], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None, "the attacker gave up"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def tar_of(name: str, content: bytes = b"planted") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files_of(data: bytes) -> dict[str, bytes]:
    """Names and contents; the archive must be whole."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            reader = archive.extractfile(member) if member.isfile() else None
            found[member.name] = reader.read() if reader else b""
    return found


def root_of(daemon: LabDaemon, name: str) -> Path:
    return Path(f"/proc/{daemon.pid_of(name)}/root")


def mounts_at(outside: Path, daemon: LabDaemon) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(outside) in line or str(daemon.root) in line]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's, with a file that nobody in a container may read."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "f").write_text("SECRET")
    return tmp_path / "host"


@pytest.mark.fault("races: links and mounts that change places")
@pytest.mark.parametrize("part", ["last", "middle"])
def test_a_directory_and_a_link_out_change_places(
    daemon: LabDaemon, name: str, outside: Path, part: str
) -> None:
    """CVE-2018-15664. Without resolution in the container's root, the host's file is read, or the host's
    directory written to, within a few rounds."""
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    root = root_of(daemon, name)
    (root / "work" / "dir" / "in").mkdir(parents=True)
    for place in ("dir", "dir/in"):
        (root / "work" / place / "f").write_text("inside")
    target = outside if part == "last" else outside.parent
    (root / "work" / "link").symlink_to(target)
    path = "/work/dir" if part == "last" else f"/work/dir/{outside.name}"
    if part == "middle":
        (root / "work/dir/in").rename(root / "work/dir" / outside.name)
    answers = set()
    with swapping(root / "work", "dir", "link"):
        for number in range(ROUNDS):
            got = daemon.api("GET", f"/containers/{name}/archive", path=f"{path}/f")
            answers.add(got.status)
            if got.status == 200:
                assert files_of(got.body) == {"f": b"inside"}
            put = daemon.api("PUT", f"/containers/{name}/archive", tar_of(f"p{number}"), path=path)
            answers.add(put.status)
    assert answers == {200, 404}, "both sides of the race were seen"
    assert os.listdir(outside) == ["f"] and (outside / "f").read_text() == "SECRET"


@pytest.mark.fault("races: links and mounts that change places")
def test_entries_change_places_while_a_tree_is_copied(daemon: LabDaemon, name: str, outside: Path) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    root = root_of(daemon, name)
    for number in range(30):
        (root / "tree" / f"d{number:02}").mkdir(parents=True)
        (root / "tree" / f"d{number:02}" / "f").write_text("inside")
    (root / "tree" / "d15x").symlink_to(outside)
    kinds = set()
    with swapping(root / "tree", "d15", "d15x"):
        for number in range(ROUNDS // 2):
            got = daemon.api("GET", f"/containers/{name}/archive", path="/tree")
            assert got.status == 200
            found = files_of(got.body)
            assert b"SECRET" not in found.values()
            kinds.add("tree/d15/f" in found)
            inner = tar_of(f"d15/p{number}")
            put = daemon.api("PUT", f"/containers/{name}/archive", inner, path="/tree")
            assert put.status in (200, 400), put.body
    assert kinds == {True, False}, "both sides of the race were seen"
    assert os.listdir(outside) == ["f"]


@pytest.mark.fault("races: links and mounts that change places")
def test_a_mount_point_in_a_volume_changes_places(daemon: LabDaemon, name: str, outside: Path) -> None:
    """A stopped container's volume lies in another volume, which a running container holds. Mounting by
    path would mount over, and write into, the host's directory."""
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/v", *SLEEP).ok()
    inner, outer = f"{name}-inner:/data/sub", f"{name}:/data"
    daemon.docker("create", "--name", f"{name}-b", "-v", outer, "-v", inner, "busybox", "true").ok()
    root = root_of(daemon, name)
    (root / "v" / "sub").mkdir()
    (root / "v" / "link").symlink_to(outside)
    before = mounts_at(outside, daemon)
    with swapping(root / "v", "sub", "link"):
        for number in range(ROUNDS // 2):
            put = daemon.api("PUT", f"/containers/{name}-b/archive", tar_of(f"p{number}"), path="/data/sub")
            assert put.status in (200, 400, 404), put.body
            got = daemon.api("GET", f"/containers/{name}-b/archive", path="/data/sub")
            assert b"SECRET" not in got.body
    assert os.listdir(outside) == ["f"]
    assert mounts_at(outside, daemon) == before


def test_links_of_the_kernels_own_lead_nowhere(daemon: LabDaemon, name: str, outside: Path) -> None:
    """With the host's processes in view, ``/proc/1/root`` is the host's root."""
    daemon.docker("run", "-d", "--pid", "host", "--cap-add", "SYS_PTRACE", "--name", name, *SLEEP).ok()
    daemon.docker("exec", name, "ln", "-s", f"/proc/{os.getpid()}/root{outside}", "/out").ok()
    assert daemon.docker("exec", name, "ls", "/out/").out == "f", "the link does lead out for a process"
    assert b"SECRET" not in daemon.api("GET", f"/containers/{name}/archive", path="/out/f").body
    assert daemon.api("GET", f"/containers/{name}/archive", path="/out/f").status >= 400
    assert daemon.api("PUT", f"/containers/{name}/archive", tar_of("p"), path="/out").status >= 400
    assert os.listdir(outside) == ["f"]


def test_links_in_an_archive_do_not_lead_out_of_the_destination(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for link, target in (("up", "../etc"), ("abs", "/etc")):
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    links = buffer.getvalue()
    assert daemon.api("PUT", f"/containers/{name}/archive", links, path="/home").status == 200
    for link in ("up", "abs"):
        put = daemon.api("PUT", f"/containers/{name}/archive", tar_of(f"{link}/p"), path="/home")
        assert put.status == 400 and "leads out" in put.message
    hard = io.BytesIO()
    with tarfile.open(fileobj=hard, mode="w") as archive:
        info = tarfile.TarInfo("hard")
        info.type, info.linkname = tarfile.LNKTYPE, "../etc/passwd"
        archive.addfile(info)
    put = daemon.api("PUT", f"/containers/{name}/archive", hard.getvalue(), path="/home")
    assert put.status == 400


def test_programs_of_the_container_are_not_run(daemon: LabDaemon, name: str) -> None:
    """CVE-2026-41567: a decompressor found in the container."""
    import lzma

    script = (
        "for p in xz gzip bzip2 zstd unpigz tar python3; do printf '#!/bin/sh\\necho >/ran' >/usr/bin/$p;"
    )
    script += " chmod +x /usr/bin/$p; done; echo >/done; sleep 1000"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    root = root_of(daemon, name)
    wait_until((root / "done").exists)
    packed = lzma.compress(tar_of("p"))
    assert daemon.api("PUT", f"/containers/{name}/archive", packed, path="/home").status == 200
    assert daemon.api("GET", f"/containers/{name}/archive", path="/").status == 200
    assert (root / "home/p").exists() and not (root / "ran").exists()


def test_devices_and_pipes_do_not_hold_a_copy_up(daemon: LabDaemon, name: str) -> None:
    """And none of them is opened: opening some devices does something."""
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    script = "mkdir /n; mknod /n/zero c 1 5; mknod /n/watchdog c 10 130; mkfifo /n/fifo; nc -l -U /n/s"
    daemon.docker("exec", name, "sh", "-c", script.partition("; nc")[0]).ok()
    got = daemon.api("GET", f"/containers/{name}/archive", path="/n")
    with tarfile.open(fileobj=io.BytesIO(got.body)) as archive:
        kinds = {m.name: m.type for m in archive}
    assert kinds["n/zero"] == kinds["n/watchdog"] == tarfile.CHRTYPE and kinds["n/fifo"] == tarfile.FIFOTYPE
    for node in ("zero", "fifo"):
        assert daemon.api("GET", f"/containers/{name}/archive", path=f"/n/{node}").status == 200
    # what is extracted replaces a node, it is not written into it
    assert daemon.api("PUT", f"/containers/{name}/archive", tar_of("fifo"), path="/n").status == 200
    assert stat.S_ISREG((root_of(daemon, name) / "n/fifo").stat().st_mode)


def test_files_that_change_while_they_are_copied(daemon: LabDaemon, name: str) -> None:
    """The archive is whole, whatever became of the sizes it promised."""
    script = "mkdir /g; while :; do head -c 900000 /dev/zero >/g/big; echo x >/g/small; rm /g/small; "
    script += "truncate -s 10 /g/big; mv /g/big /g/other; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    for _ in range(30):
        got = daemon.api("GET", f"/containers/{name}/archive", path="/g")
        if got.status == 200:
            assert set(files_of(got.body)) <= {"g", "g/big", "g/small", "g/other"}


def test_a_tree_deeper_than_any_path_is_left_at_that(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    daemon.docker("exec", name, "mkdir", "/deep").ok()
    libc = ctypes.CDLL(None)
    at = os.open(root_of(daemon, name) / "deep", os.O_RDONLY)
    try:
        for _ in range(50):
            assert libc.mkdirat(at, b"d" * 200, 0o755) == 0
            inner = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = inner
    finally:
        os.close(at)
    assert daemon.api("GET", f"/containers/{name}/archive", path="/deep").status == 200
    replaced = tar_of("deep", b"a file")
    assert daemon.api("PUT", f"/containers/{name}/archive", replaced, path="/").status == 200


def _helpers(daemon: LabDaemon) -> list[int]:
    """Children of the daemon that copy."""
    found = _forked(daemon)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if _CHILD in words and str(daemon.base).encode() in words:
                found.append(int(entry.name))
    return found


def _forked(daemon: LabDaemon) -> list[int]:
    """Those that are forks of a clean process; they do not say what they do."""
    server = hosttraces.fork_server(daemon.pid)
    return [] if server is None else hosttraces.children(server)


def test_a_killed_daemon_leaves_no_copy_behind(fresh_daemon: LabDaemon) -> None:
    """The view of a stopped container ends with its helper, and the helper with the daemon."""
    daemon = fresh_daemon
    daemon.docker("create", "--name", "cc", "-v", "vv:/v", *SLEEP).ok()
    connection = daemon.connection()
    connection.putrequest("PUT", "/containers/cc/archive?path=/v")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(tar_of("first")[:1024] + tar_of("second", bytes(500_000))[:4096])
    place = daemon.root / "volumes/vv/_data/first"
    wait_until(place.exists)
    (helper,) = _helpers(daemon)
    assert not [m for m in daemon.traces() if m.startswith("mount ") and "/snapshots/" in m]
    daemon.restart(9)
    connection.close()
    wait_until(lambda: not Path(f"/proc/{helper}").exists())
    daemon.docker("start", "cc").ok()


def test_a_start_waits_for_a_copy_and_a_removal_ends_it(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-v", f"{name}:/v", *SLEEP).ok()
    connection = daemon.connection()
    connection.putrequest("PUT", f"/containers/{name}/archive?path=/v")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(tar_of("first")[:1024])
    wait_until((daemon.root / f"volumes/{name}/_data/first").exists)
    with daemon.docker_process("start", name) as starting:
        time.sleep(0.3)  # it must not have happened, so there is nothing to wait for
        assert daemon.state_of(name)["Status"] == "created" and starting.poll() is None
        assert daemon.api("DELETE", f"/containers/{name}?force=1").status == 204
        starting.wait(patiently(20))  # it may have come before the removal
    assert connection.getresponse().status >= 400
    connection.close()
    wait_until(lambda: not _helpers(daemon))


def test_a_client_that_goes_away_ends_its_copy(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    daemon.docker("exec", name, "sh", "-c", "head -c 100000000 /dev/zero >/big").ok()
    for path in ("archive?path=/big", "export"):
        connection = daemon.connection()
        connection.request("GET", f"/containers/{name}/{path}")
        assert len(connection.getresponse().read(1000)) == 1000
        wait_until(lambda: _helpers_of_all(daemon))
        connection.close()
        wait_until(lambda: not _helpers_of_all(daemon))


def _helpers_of_all(daemon: LabDaemon) -> list[int]:
    """The daemon's children that copy, whatever view they have."""
    found = _forked(daemon)
    for pid in hosttraces.children(daemon.pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if _CHILD in words and b"forkserver_main" not in words:  # the server names all that it can do
                found.append(pid)
    return found
