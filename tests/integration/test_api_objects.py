"""Images, volumes, networks, ports, events and the daemon's own figures, with the docker CLI."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import tarfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from freeports import free_port
from patience import patiently

from wherry.linux import netns

pytestmark = pytest.mark.kernel


# ---- images ----------------------------------------------------------------------------------------------


def test_images_tag_rmi_history(daemon: LabDaemon, name: str) -> None:
    daemon.docker("tag", "busybox", f"{name}:one").ok()
    daemon.docker("tag", "busybox", f"host.example:5000/a/{name}").ok()
    shown = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}").ok().split()
    assert {"busybox:latest", f"{name}:one", f"host.example:5000/a/{name}:latest"} <= set(shown)
    assert daemon.docker("images", "-q", f"{name}:*").ok().count("\n") == 0
    assert daemon.docker("images", "--filter", f"reference={name}", "-q").ok() != ""
    assert daemon.docker("images", "--filter", "dangling=true", "-q").ok() == ""
    assert "CREATED BY" in daemon.docker("history", "busybox").ok()
    inspect = json.loads(daemon.docker("image", "inspect", f"{name}:one").ok())[0]
    assert f"{name}:one" in inspect["RepoTags"]
    assert inspect["Id"] == inspect["Descriptor"]["digest"]
    out = daemon.docker("rmi", f"{name}:one").ok()
    assert f"Untagged: {name}:one" in out and "Deleted" not in out
    daemon.docker("rmi", f"host.example:5000/a/{name}").ok()
    missing = daemon.docker("rmi", f"{name}:one")
    assert missing.code == 1
    assert "No such image" in missing.errors
    assert daemon.docker("tag", "busybox", "UPPER").code == 1
    assert daemon.docker("tag", "none-such", "x").code == 1


def test_an_image_in_use_stays(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    identifier = daemon.docker("inspect", "-f", "{{.Image}}", name).ok()
    refused = daemon.docker("rmi", "-f", identifier)
    assert refused.code == 1
    assert "image is being used by running container" in refused.errors
    assert daemon.docker("image", "prune", "-af").code == 0
    assert daemon.docker("run", "--rm", "busybox", "true").code == 0


def test_save_and_load_keep_the_digest(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    daemon.docker("tag", "busybox", f"{name}:s").ok()
    before = daemon.docker("inspect", "-f", "{{.Id}}", f"{name}:s").ok()
    archive = tmp_path / "a.tar"
    daemon.docker("save", "-o", str(archive), f"{name}:s").ok()
    with tarfile.open(archive) as tar:
        assert {"manifest.json", "index.json", "oci-layout"} <= set(tar.getnames())
    daemon.docker("rmi", f"{name}:s").ok()
    assert f"Loaded image: {name}:s" in daemon.docker("load", "-i", str(archive)).ok()
    assert daemon.docker("inspect", "-f", "{{.Id}}", f"{name}:s").ok() == before
    piped = daemon.docker("save", f"{name}:s").raw
    assert daemon.docker("load", input=piped).code == 0
    bad = daemon.docker("load", input=b"not an archive")
    assert bad.code == 1 and bad.errors
    cut = daemon.docker("load", input=piped[: len(piped) // 2])
    assert cut.code == 1


def test_import(daemon: LabDaemon, name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        content = Path("/bin/busybox").read_bytes()
        info = tarfile.TarInfo("bin/sh")
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
    changes = ("-c", 'CMD ["/bin/sh","-c","echo $A in $(pwd)"]', "-c", "ENV A=made", "-c", "WORKDIR /w")
    daemon.docker("import", "-m", "by hand", *changes, "-", f"{name}:i", input=buffer.getvalue()).ok()
    assert daemon.docker("run", "--rm", f"{name}:i").ok() == "made in /w"
    assert "by hand" in daemon.docker("history", f"{name}:i").ok()
    bad = daemon.docker("import", "-c", "RUN x", "-", f"{name}:j", input=buffer.getvalue())
    assert bad.code == 1
    assert "RUN is not a valid change command" in bad.errors


def test_a_registry_that_is_not_there_is_named(daemon: LabDaemon) -> None:
    done = daemon.docker("pull", "127.0.0.1:1/busybox")
    assert done.code == 1
    assert "127.0.0.1:1" in done.errors
    assert "refused" in done.errors


# ---- volumes and networks --------------------------------------------------------------------------------


def test_volumes(daemon: LabDaemon, name: str) -> None:
    assert daemon.docker("volume", "create", "-d", "local", "--label", "a=1", name).ok() == name
    daemon.docker("create", "--name", name, "-v", f"{name}-u:/d", "-v", "/anonymous", "busybox").ok()
    used = daemon.docker("volume", "ls", "-q", "--filter", "dangling=false").ok().split()
    assert f"{name}-u" in used and name not in used
    assert daemon.docker("volume", "ls", "-q", "--filter", "label=a=1").ok() == name
    assert daemon.docker("volume", "ls", "-q", "--filter", f"name={name}-u").ok() == f"{name}-u"
    assert daemon.docker("volume", "ls", "-q", "--filter", "driver=nfs").ok() == ""
    inspect = json.loads(daemon.docker("volume", "inspect", name).ok())[0]
    assert (inspect["Driver"], inspect["Scope"], inspect["Labels"]) == ("local", "local", {"a": "1"})
    assert Path(inspect["Mountpoint"]).is_dir()
    refused = daemon.docker("volume", "rm", f"{name}-u")
    assert refused.code == 1
    assert "volume is in use" in refused.errors
    daemon.docker("rm", name).ok()
    anonymous = daemon.docker("volume", "prune", "-f").ok()
    assert "Total reclaimed space" in anonymous
    assert {name, f"{name}-u"} <= daemon.volumes()
    daemon.docker("volume", "prune", "-af").ok()
    assert daemon.volumes() == set()
    for bad in ("../x", "a/b", "-x"):
        assert daemon.api("POST", "/volumes/create", {"Name": bad}).status == 400, bad
    assert daemon.api("POST", "/volumes/create", {"Name": name, "Driver": "nfs"}).status in (400, 404, 501)
    assert daemon.docker("volume", "inspect", "none-such").code == 1


def test_networks(daemon: LabDaemon, name: str) -> None:
    rows = daemon.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").ok().splitlines()
    assert set(rows) == {"bridge bridge local", "host host local", "none null local"}
    assert daemon.docker("network", "ls", "-q", "--filter", "driver=host").ok().count("\n") == 0
    assert daemon.docker("network", "ls", "--filter", "type=custom", "-q").ok() == ""
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    bridge = json.loads(daemon.docker("network", "inspect", "bridge").ok())[0]
    (endpoint,) = bridge["Containers"].values()
    assert endpoint["Name"] == name
    assert bridge["IPAM"]["Config"][0]["Gateway"]
    assert daemon.docker("network", "inspect", "none-such").code == 1
    missing = daemon.docker("run", "--rm", "--network", "none-such", "busybox", "true")
    assert missing.code == 125
    assert "network none-such not found" in missing.errors


# ---- ports -----------------------------------------------------------------------------------------------

SERVER = "while :; do echo hello | nc -l -p 80; done"


def greeting(address: str, port: int) -> bytes:
    try:
        with socket.create_connection((address, port), timeout=patiently(1)) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def test_published_ports(daemon: LabDaemon, name: str) -> None:
    port = free_port()
    daemon.docker("run", "-d", "--name", name, "-p", f"{port}:80", "busybox", "sh", "-c", SERVER).ok()
    for address in ("127.0.0.1", own_address()):
        wait_until(lambda a=address: greeting(a, port) == b"hello\n", f"{address}:{port}")
    assert daemon.docker("port", name).ok() == f"80/tcp -> 0.0.0.0:{port}"
    inside = f"nc -w 2 {own_address()} {port}"
    out = daemon.docker("run", "--rm", "busybox", "sh", "-c", f"until {inside}; do :; done")
    assert out.ok() == "hello"
    taken = daemon.docker("run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert taken.code == 125
    assert "port is already allocated" in taken.errors
    daemon.docker("stop", "-t", "0", name).ok()
    assert greeting("127.0.0.1", port) == b""


def test_a_port_that_a_host_program_has(daemon: LabDaemon) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        done = daemon.docker("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    assert done.code == 125
    assert "address already in use" in done.errors


def test_port_forms(daemon: LabDaemon, name: str) -> None:
    flags = (
        "-p",
        "127.0.0.1::80",
        "-p",
        "127.0.0.1::81/udp",
        "-p",
        "127.0.0.1:42000-42010:82",
        "-p",
        "42020-42021:90-91",
    )
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000").ok()
    lines = dict(line.split(" -> ") for line in daemon.docker("port", name).ok().splitlines())
    assert set(lines) == {"80/tcp", "81/udp", "82/tcp", "90/tcp", "91/tcp"}
    assert 42000 <= int(lines["82/tcp"].rpartition(":")[2]) <= 42010
    assert (lines["90/tcp"], lines["91/tcp"]) == ("0.0.0.0:42020", "0.0.0.0:42021")
    other = f"{name}-p"
    daemon.docker("run", "-d", "--name", other, "-P", "--expose", "7000", "busybox", "sleep", "1000").ok()
    assert daemon.docker("port", other).ok().startswith("7000/tcp -> 0.0.0.0:")


def test_udp(daemon: LabDaemon, name: str) -> None:
    port = free_port(socket.SOCK_DGRAM)
    flags = ("-p", f"127.0.0.1:{port}:99/udp")
    identifier = daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000").ok()

    def inside() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 99))
        return server

    server = netns.inside(daemon.run / "netns" / identifier, inside)
    with closing(server), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.settimeout(patiently(20))
        client.settimeout(patiently(20))
        client.sendto(b"ping", ("127.0.0.1", port))
        data, sender = server.recvfrom(10)
        server.sendto(data[::-1], sender)
        assert client.recv(10) == b"gnip"


def test_outbound(daemon: LabDaemon) -> None:
    with closing(socket.create_server((own_address(), 0))) as server:
        server.settimeout(patiently(20))

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"from the host\n")

        thread = threading.Thread(target=answer)
        thread.start()
        host, port = server.getsockname()
        out = daemon.docker("run", "--rm", "busybox", "nc", "-w", "5", host, str(port)).ok()
        thread.join(patiently(20))
    assert out == "from the host"


# ---- events and figures ----------------------------------------------------------------------------------


def test_live_events(daemon: LabDaemon, name: str) -> None:
    format_ = ("--format", "{{.Type}} {{.Action}}")
    with daemon.docker_process("events", *format_, "--filter", f"container={name}") as process:
        wait_until(lambda: daemon.api("GET", "/info").json["NEventsListener"] == 1)
        daemon.docker("run", "--rm", "--name", name, "busybox", "true").ok()
        assert process.stdout is not None
        lines = [process.stdout.readline().decode().strip() for _ in range(5)]
    assert lines == [f"container {a}" for a in ("create", "attach", "start", "die", "destroy")]


def test_events_say_who_asked(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    os.kill(daemon.pid_of(name), signal.SIGKILL)
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    answer = daemon.api("GET", "/events", since=1, until=str(time.time()), filters={"container": [name]})
    who = {event["Action"]: event.get("Initiator") for event in answer.lines}
    assert (who["create"]["User"], who["create"]["Uid"]) == ("root", 0)
    assert who["start"]["Pid"] > 0
    assert who["die"] is None


def test_event_times_and_filters(daemon: LabDaemon, name: str) -> None:
    since = f"{time.time():.6f}"
    daemon.docker("run", "--name", name, "-l", "mark=1", "-v", f"{name}:/v", "busybox", "sh", "-c", "exit 5")
    middle = f"{time.time():.6f}"
    daemon.docker("rm", name).ok()
    until = f"{time.time():.6f}"

    def actions(since: str, until: str, **filters: list[str]) -> list[str]:
        answer = daemon.api("GET", "/events", since=since, until=until, filters=filters)
        return [e["Action"] for e in answer.lines]

    assert actions(since, until, container=[name]) == ["create", "attach", "start", "die", "destroy"]
    assert actions(middle, until, type=["container"]) == ["destroy"]
    assert actions(since, middle, event=["die", "start"], container=[name]) == ["start", "die"]
    assert actions(since, until, type=["volume"], volume=[name]) == ["create", "mount", "unmount"]
    assert actions(since, until, label=["mark=1"]) == ["create", "attach", "start", "die", "destroy"]
    assert actions(since, until, label=["mark=2"]) == []
    assert "die" in actions(since, until, image=["busybox"])
    die = daemon.api("GET", "/events", since=since, until=until, filters={"event": ["die"]}).lines[0]
    assert die["Actor"]["Attributes"]["exitCode"] == "5"
    assert daemon.api("GET", "/events", since=until, until=since).status == 400


def test_version_info_and_df(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-v", name + ":/v", "busybox").ok()
    assert daemon.docker("version", "--format", "{{.Server.APIVersion}}").ok() == "1.56"
    assert str(daemon.root) in daemon.docker("info").ok()
    rows = daemon.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}").ok().splitlines()
    assert rows == ["Images 1", "Containers 1", "Local Volumes 1", "Build Cache 0"]
    assert daemon.docker("system", "df", "-v").code == 0
    for version in ("1.40", "1.52", "1.56"):
        assert daemon.api("GET", f"/v{version}/system/df").status == 200
    assert daemon.api("GET", "/system/df?type=odd").status == 400
    assert daemon.docker("container", "prune", "-f").code == 0
