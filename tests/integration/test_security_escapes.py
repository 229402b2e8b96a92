"""Known ways out of containers, and into the daemon, tried on a real one (docs/security.md has the list)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from daemonlab import TIMEOUT, LabDaemon, new_base, wait_until
from patience import patiently
from test_security_cp import swapping

pytestmark = pytest.mark.kernel

BUSYBOX = Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b""
SLEEP = ("busybox", "sleep", "1000")


def link(target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def directory() -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def image_of(daemon: LabDaemon, entries: dict[str, Any], *changes: str) -> str:
    """An image with busybox and these; ``changes`` as of a Dockerfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in {"bin/busybox": BUSYBOX, "bin/sh": link("busybox"), **entries}.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    query = "".join(f"&changes={quote(c)}" for c in changes)
    answer = daemon.api(
        "POST", f"/images/create?fromSrc=-{query}", buffer.getvalue(),
        headers={"Content-Type": "application/x-tar"},
    )  # fmt: skip
    assert answer.status == 200, answer.body
    identifier: str = answer.lines[-1]["status"]
    return identifier


# ---- the runtime -----------------------------------------------------------------------------------------

THIEF = r"""
use POSIX ();
$| = 1; print "ready\n"; my (%held, %seen);
until (-e "/stop") {
  for my $p (grep m{/[0-9]+$}, </proc/*>) {
    next if $p eq "/proc/$$" or $p eq "/proc/1" or $held{$p};
    my $exe = readlink "$p/exe";
    if (!defined $exe) { $seen{"hidden: $!"}++ if $! != 2 and $! != 3; next }
    next if $exe =~ m{^/usr/bin/(perl|touch|true)$|^/bin/};
    $held{$p} = 1;
    if (open(my $f, "<", "$p/exe")) { push @held, [$exe, $f] } else { $seen{"$exe: unreadable $!"} = 1 }
  }
}
for (@held) {
  my ($exe, $f) = @$_;
  my $open = open(my $w, "+<", "/proc/self/fd/" . fileno $f);
  $seen{$exe . ": " . ($open ? "WRITABLE" : $!)} = 1;
}
print "$_\n" for sort keys %seen;
"""


@pytest.mark.fault("races: links and mounts that change places")
@pytest.mark.skipif(not Path("/usr/bin/perl").exists(), reason="the distribution's perl is not there")
@pytest.mark.patient(60)
def test_the_runtime_cannot_be_overwritten(daemon: LabDaemon, name: str) -> None:
    """CVE-2019-5736: the container catches the runtime as it enters, and keeps it open until it has left."""
    runtimes = [Path(p) for r in ("crun", "runc", "conmon") if (p := shutil.which(r))]
    before = {p: hashlib.sha256(p.read_bytes()).digest() for p in runtimes}
    binds = [w for d in ("/usr:/usr", "/usr/lib:/lib") for w in ("-v", f"{d}:ro")]
    binds += ["-v", "/lib64:/lib64:ro"] if Path("/lib64").exists() else []
    daemon.docker("run", "-d", "--name", name, "--cap-add", "SYS_PTRACE", *binds, *SLEEP).ok()
    with daemon.docker_process("exec", "-i", name, "/usr/bin/perl", "-") as thief:
        assert thief.stdin is not None and thief.stdout is not None
        thief.stdin.write(THIEF.encode())
        thief.stdin.close()
        assert thief.stdout.readline() == b"ready\n"
        for _ in range(25):
            daemon.docker("exec", name, "true").ok()
        daemon.docker("exec", name, "touch", "/stop").ok()
        caught = thief.stdout.read().decode()
        assert thief.wait(patiently(TIMEOUT)) == 0
    assert caught.strip(), "the runtime was never met"
    assert "WRITABLE" not in caught, caught
    assert {p: hashlib.sha256(p.read_bytes()).digest() for p in runtimes} == before
    for command in ('ENTRYPOINT ["/proc/self/exe"]', 'ENTRYPOINT ["/proc/self/fd/3"]'):
        done = daemon.docker("run", "--rm", image_of(daemon, {}, command), "--version")
        assert done.code in (1, 126, 127), (done.code, done.out)
        assert "crun" not in done.out and "runc" not in done.out


@pytest.mark.parametrize("place", ["dev", "proc", "sys", "dev/pts", "dev/shm", "sys/fs"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_image_whose_mount_points_are_traps(
    daemon: LabDaemon, tmp_path: Path, place: str, kind: str
) -> None:
    """CVE-2026-41579, CVE-2025-31133: nothing is made or mounted where the link leads, and a container that
    starts at all has its own file systems and masks."""
    outside = tmp_path / "out"
    outside.mkdir()
    before = Path("/proc/self/mountinfo").read_text().count(str(outside))
    trap = link(str(outside)) if kind == "link" else b"file"
    image = image_of(daemon, {place: trap})
    script = "/bin/busybox grep -c . /proc/interrupts; echo x >/proc/sys/kernel/panic; /bin/busybox id"
    for flags in ((), ("-t",)):
        done = daemon.docker("run", "--rm", *flags, image, "/bin/sh", "-c", script)
        assert done.code in (0, 125, 127)  # 127 where the runtime finds no such file, as Docker has it
        if done.code == 0:
            assert done.out.startswith("0") and "Read-only" in done.out + done.errors
    assert os.listdir(outside) == []
    assert Path("/proc/self/mountinfo").read_text().count(str(outside)) == before


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ("/proc", "not of type proc"),
        ("/proc/sys", "inside /proc"),
        ("/proc/self/attr", "inside /proc"),
        ("/to-proc/sys", "inside /proc"),
        ("/to-proc", "not of type proc"),
    ],
)
def test_procfs_cannot_be_covered(daemon: LabDaemon, volume: str, words: str) -> None:
    """CVE-2019-19921, CVE-2025-52881: the runtime would take the volume for the kernel's."""
    entries = {"to-proc": link("../../proc"), "proc": directory()}
    image = image_of(daemon, entries, f"VOLUME {volume}")
    done = daemon.docker("run", "--rm", image, "/bin/sh", "-c", "true")
    assert done.code == 125 and words in done.errors, done.errors
    plain = image_of(daemon, entries)
    for flag in (("-v", f"/tmp:{volume}"), ("--tmpfs", volume)):
        done = daemon.docker("run", "--rm", *flag, plain, "/bin/sh", "-c", "true")
        assert done.code == 125 and words in done.errors, done.errors


def test_procfs_may_be_what_it_is(daemon: LabDaemon, tmp_path: Path) -> None:
    """The host's own, and single files of numbers, as with Docker."""
    (tmp_path / "meminfo").write_text("MemTotal: 7 kB\n")
    flags = ("-v", "/proc:/proc", "-v", f"{tmp_path}/meminfo:/proc/meminfo:ro")
    assert daemon.docker("run", "--rm", *flags[2:], "busybox", "cat", "/proc/meminfo").out == "MemTotal: 7 kB"
    shown = daemon.docker("run", "--rm", *flags[:2], "busybox", "cat", f"/proc/{daemon.pid}/comm").ok()
    assert shown == Path(f"/proc/{daemon.pid}/comm").read_text().strip()


def test_devices_of_an_image_are_not_the_containers(daemon: LabDaemon) -> None:
    """CVE-2025-52565: /dev/null and /dev/console of a volume that an image asks for lead elsewhere."""
    entries = {
        "dev": directory(),
        "dev/null": link("/proc/sys/kernel/core_pattern"),
        "dev/console": link("/proc/sysrq-trigger"),
        "proc": directory(),
    }
    image = image_of(daemon, entries, "VOLUME /dev")
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for flags in ((), ("-t",)):
        done = daemon.docker("run", "--rm", *flags, image, "/bin/sh", "-c", "echo x >/dev/null; echo end")
        assert done.code == 125 or "Read-only" in done.out + done.errors
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


# ---- changes to a running container ----------------------------------------------------------------------


def changed(daemon: LabDaemon, name: str, **change: Any) -> int:
    return daemon.api("POST", f"/containers/{name}/update", change).status


def bind(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target}


@pytest.mark.fault("races: links and mounts that change places")
@pytest.mark.patient(60)
def test_mounts_added_while_the_place_is_swapped(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    """CVE-2021-30465 for mounts of running containers. By path, one in a few rounds would land on, or take
    away, what the links lead to."""
    for source in ("src", "more"):
        (tmp_path / source).mkdir()
        (tmp_path / source / "f").write_text("mine")
    (tmp_path / "host" / "in").mkdir(parents=True)
    daemon.docker("run", "-d", "--name", name, "-v", f"{tmp_path}/src:/walled/in", *SLEEP).ok()
    root = Path(f"/proc/{daemon.pid_of(name)}/root")
    (root / "work/dir/in").mkdir(parents=True)
    for number, target in enumerate((str(tmp_path / "host"), "/proc", "/walled", "/")):
        (root / "work" / f"link{number}").symlink_to(target)
    walls = Path(f"/proc/{daemon.pid_of(name)}/mountinfo").read_text().count("\n")
    outside = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
    seen = set()
    for number in range(4):
        with swapping(root / "work", "dir", f"link{number}"):
            for _ in range(12):
                added = changed(daemon, name, MountsAdd=[bind(tmp_path / "more", "/work/dir/in")])
                if added == 200:
                    removed = 0
                    while removed != 200:  # each try meets one side of the race
                        removed = changed(daemon, name, MountsRemove=["/work/dir/in"])
                        seen.add(("removed", removed))
                seen.add(("added", added))
    assert ("added", 200) in seen
    assert not [s for s in seen if s[1] not in (200, 400, 500)]
    assert os.listdir(tmp_path / "host/in") == []
    assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == outside
    assert daemon.docker("exec", name, "cat", "/walled/in/f").ok() == "mine"
    assert daemon.docker("exec", name, "wc", "-c", "/proc/interrupts").ok().split()[0] == "0"
    text = Path(f"/proc/{daemon.pid_of(name)}/mountinfo").read_text()
    assert text.count("\n") == walls, text


@pytest.mark.fault("races: links and mounts that change places")
def test_a_mount_that_changed_places_is_not_taken_for_another(
    daemon: LabDaemon, name: str, tmp_path: Path
) -> None:
    """The container renames the directories above two mounts: what the operator then removes by its name
    would be the other one, which may be there to hide something."""
    for source in ("one", "two"):
        (tmp_path / source).mkdir()
    flags = ("-v", f"{tmp_path}/one:/a/in/m", "-v", f"{tmp_path}/two:/b/in/m")
    daemon.docker("run", "-d", "--name", name, *flags, *SLEEP).ok()
    daemon.docker("exec", name, "sh", "-c", "mv /a /t && mv /b /a && mv /t /b").ok()
    answer = daemon.api("POST", f"/containers/{name}/update", {"MountsRemove": ["/a/in/m"]})
    assert "another mount is there" in answer.message
    daemon.docker("exec", name, "sh", "-c", "mv /a /t && mv /b /a && mv /t /b").ok()
    assert changed(daemon, name, MountsRemove=["/a/in/m"]) == 200


def test_what_every_container_has_is_not_unmounted(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    for number, wall in enumerate(("/dev", "/proc", "/sys", "/etc/hosts", "/dev/shm")):
        target = tmp_path / "f" if wall == "/etc/hosts" else tmp_path
        (tmp_path / "f").touch()
        assert changed(daemon, name, MountsAdd=[bind(target, f"/m{number}/x")]) == 200
        daemon.docker("exec", name, "sh", "-c", f"mv /m{number} /o{number}; mkdir /m{number}").ok()
        daemon.docker("exec", name, "ln", "-s", wall, f"/m{number}/x").ok()
        answer = daemon.api("POST", f"/containers/{name}/update", {"MountsRemove": [f"/m{number}/x"]})
        assert "not a place of the container's own" in answer.message, wall


# ---- what the host shows ---------------------------------------------------------------------------------


def test_nothing_listens_on_abstract_sockets(daemon: LabDaemon, name: str) -> None:
    """CVE-2020-15257: a container on the host's network reaches every abstract socket of the host."""
    daemon.docker("run", "-d", "-t", "--network", "host", "--name", name, *SLEEP).ok()
    with daemon.docker_process("exec", "-i", name, "cat"):
        wait_until(lambda: len(daemon.processes()) >= 2)
        inodes = set()
        for pid in (daemon.pid, *daemon.processes()):
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # Nobody listens there, and nothing is read of it: a name that only one daemon of a root can have.
    lines = [w for w in lines if not (w[-1].startswith("@wherry/network/") and w[4] == "0002")]
    assert [w[-1] for w in lines if f"socket:[{w[6]}]" in inodes and w[-1].startswith("@")] == []
    assert [w[-1] for w in lines if f"socket:[{w[6]}]" in inodes and w[-1].startswith("/")] != []


@pytest.fixture
def careless_daemon() -> Iterator[LabDaemon]:
    """Started by somebody whose umask is 0, on directories that are open to all."""
    program = ["sh", "-c", 'umask 0; exec "$@"', "sh", sys.executable, "-m", "wherry.daemon.entry"]
    daemon = LabDaemon(new_base(), program=program)
    for path in (daemon.root, daemon.run):
        path.mkdir(mode=0o777)
        path.chmod(0o777)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def test_state_is_closed_to_others(careless_daemon: LabDaemon) -> None:
    """CVE-2021-41091, CVE-2024-25621: nobody comes to a set-user-ID program in a volume, to logs, or to a
    socket; and no file is left for others to write."""
    daemon = careless_daemon
    flags = ("-v", "vv:/v", "-w", "/made", "--log-driver", "json-file")
    daemon.docker("run", "-d", "-t", "--name", "one", *flags, *SLEEP).ok()
    daemon.docker("exec", "-d", "one", "sleep", "1000").ok()
    daemon.docker("commit", "one", "committed").ok()
    assert stat.S_IMODE(daemon.root.stat().st_mode) == 0o710
    writable = []
    for top in (daemon.root, daemon.run):
        for where, directories, names in os.walk(top):
            directories[:] = [d for d in directories if d not in ("fs", "rootfs", "work", "_data", "shm")]
            for entry in (*directories, *names):
                path = Path(where, entry)
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    continue
                if status.st_mode & 0o002 or (status.st_mode & 0o020 and status.st_gid != 0):
                    writable.append(str(path))
    reachable = [p.name for p in daemon.run.iterdir() if p.lstat().st_mode & 0o007]
    with contextlib.suppress(KeyError):
        import grp

        grp.getgrnam("docker")
        writable = [w for w in writable if w != str(daemon.socket)]
    assert (writable, reachable) == ([], ["owner", "wherryd.pid"])
    assert daemon.docker("exec", "one", "sh", "-c", "umask; stat -c %a /made /etc/hosts").out.split() == [
        "0022",
        "755",
        "644",
    ]


# ---- the API ---------------------------------------------------------------------------------------------


def test_execs_that_are_never_started_are_forgotten(daemon: LabDaemon, name: str) -> None:
    """CVE-2025-64329, CVE-2022-31030: neither their number nor their size grows without bound."""
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    connection = daemon.connection()

    def create(environment: list[str]) -> str:
        body = json.dumps({"Cmd": ["true"], "Env": environment})
        connection.request(
            "POST", f"/containers/{name}/exec", body, headers={"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 201, found
        return str(found["Id"])

    def known() -> list[str]:
        return daemon.api("GET", f"/containers/{name}/json").json["ExecIDs"] or []

    try:
        first = create([])
        last = [create([]) for _ in range(1100)][-1]
        assert len(known()) <= 1024
        assert daemon.api("GET", f"/exec/{first}/json").status == 404
        assert daemon.api("GET", f"/exec/{last}/json").status == 200
        for _ in range(24):
            create(["A=" + "x" * 1_000_000])
        assert 10 <= len(known()) <= 16
    finally:
        connection.close()
    daemon.docker("exec", name, "true").ok()


SMUGGLED = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
AMBIGUOUS = {
    "both lengths": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two encodings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "an odd encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a signed length": POST + b"Content-Length: +0\r\n\r\n",
    "a folded header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET /_ping HTTP/1.1\nHost: x\n\n",
    "a negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "an immense chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
    "two hosts": b"GET /_ping HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a NUL": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_requests_that_could_be_read_in_two_ways(daemon: LabDaemon, kind: str) -> None:
    """A second request never comes out of the first one, and the log has no page for each."""
    size = len(daemon.log)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patiently(TIMEOUT))
        connection.connect(str(daemon.socket))
        connection.sendall(AMBIGUOUS[kind] + SMUGGLED)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
    assert received.startswith(b"HTTP/1.0 400"), received[:200]
    assert b" 200 " not in received and b"ServerVersion" not in received
    assert "Traceback" not in daemon.log[size:]


def _values() -> list[Any]:
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    texts = ["", "x", "\0", "\x1b[2J", "a:b:c:d", "/", "\ud83d", "x" * 70_000, "²"]
    numbers = [0, -1, 1.5, -1e308, 1 << 31, (1 << 63) - 1, 1 << 63, 10**300]
    lists = [[], [None], [""], ["a\0b"], ["a=b", "="], [{}], [[]], deep]
    maps = [{}, {"a": None}, {"": {}}, {"80/tcp": [{"HostPort": -1}]}, {"80/tcp": [None]}, {"Name": "x\0"}]
    odd = [{"Test": ["CMD"], "Interval": -1}, [{"Type": "bind", "Source": "/", "Target": "\0"}]]
    odd += [[{"Name": "nofile", "Soft": -5, "Hard": 1 << 62}]]
    odd += [{"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "x"}, "Aliases": ["\n"]}}}]
    return [None, True, *texts, *numbers, *lists, *maps, *odd]


def test_any_value_in_any_member(daemon: LabDaemon) -> None:
    """Refused in words or taken: never an internal error, and what was taken can be shown and removed."""
    import msgspec

    from wherry.model.container import HostConfig

    own = (
        "Hostname Domainname User AttachStdin ExposedPorts Tty OpenStdin Env Cmd Healthcheck Image Volumes "
        "WorkingDir Entrypoint NetworkDisabled MacAddress OnBuild Labels StopSignal StopTimeout Shell "
        "NetworkingConfig HostConfig"
    ).split()
    host = [field.encode_name for field in msgspec.structs.fields(HostConfig)]
    connection = daemon.connection()

    def ask(method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection.request(method, path, body, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    try:
        for member in (*own, *host):
            for value in _values():
                body = {"Image": "busybox", "Cmd": ["true"]}
                said = {member: value} if member in own else {"HostConfig": {member: value}}
                status, text = ask("POST", "/containers/create", json.dumps(body | said))
                assert status in (201, 400, 404, 409, 501), (member, str(value)[:80], text[:200])
                if status == 201:
                    identifier = json.loads(text)["Id"]
                    assert ask("GET", f"/containers/{identifier}/json")[0] == 200, (member, value)
                    assert ask("DELETE", f"/containers/{identifier}?v=1")[0] == 204, (member, value)
                else:
                    assert json.loads(text)["message"]
    finally:
        connection.close()
