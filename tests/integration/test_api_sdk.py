"""The Docker SDK for Python, unchanged."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import docker.errors
import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

pytestmark = [
    pytest.mark.kernel,
    # The SDK leaves connections of attach and exec to the garbage.
    pytest.mark.leaves("ResourceWarning: unclosed <socket.socket .*/wherry.sock"),
]


@pytest.fixture
def client(daemon: LabDaemon) -> Iterator[Any]:
    with daemon.sdk() as client:
        yield client


def test_run_returns_the_output(client: Any) -> None:
    assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    assert client.containers.run("busybox", ["sh", "-c", "echo e >&2"], remove=True, stderr=True) == b"e\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    assert caught.value.exit_status == 3
    with pytest.raises(docker.errors.APIError):
        client.containers.run("busybox", "no-such-program", remove=True)


def test_list_get_and_attributes(client: Any, name: str) -> None:
    box = client.containers.run("busybox", "sleep 1000", detach=True, name=name, labels={"a": "1"}, init=True)
    assert [c.id for c in client.containers.list(filters={"label": "a=1"})] == [box.id]
    again = client.containers.get(name)
    assert (again.status, again.labels, again.name) == ("running", {"a": "1"}, name)
    assert again.image.tags == ["busybox:latest"]
    box.stop(timeout=1)
    box.reload()
    assert box.status == "exited"
    assert client.containers.list(filters={"label": "a=1"}) == []
    box.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(name)


def test_streams(client: Any) -> None:
    box = client.containers.run(
        "busybox", ["sh", "-c", "seq 1 5; read x; echo end"], detach=True, stdin_open=True
    )
    assert wait_until(lambda: box.logs() == b"1\n2\n3\n4\n5\n")
    lines = box.logs(stream=True, follow=True)
    assert next(lines)
    stdin = box.attach_socket(params={"stdin": 1, "stream": 1})
    stdin._sock.sendall(b"\n")
    assert b"".join(lines).endswith(b"end\n")
    stdin._sock.close()
    stdin.close()
    assert box.wait()["StatusCode"] == 0
    assert b"end" in box.logs(tail=1)


def test_attach_and_wait(client: Any) -> None:
    box = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2; exit 2"])
    output = box.attach(stream=True, logs=True, demux=True)
    box.start()
    parts = list(output)
    assert b"".join(o or b"" for o, _ in parts) == b"out\n"
    assert b"".join(e or b"" for _, e in parts) == b"err\n"
    assert box.wait()["StatusCode"] == 2


def test_attach_socket_carries_both_ways(client: Any) -> None:
    box = client.containers.run("busybox", "cat", detach=True, stdin_open=True, tty=True)
    stream = box.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw = stream._sock
    raw.settimeout(patiently(20))
    raw.sendall(b"hello\n")
    seen = b""
    while seen.count(b"hello") < 2:
        seen += raw.recv(100)
    box.resize(30, 90)
    raw.close()
    stream.close()
    box.kill()


def test_exec(client: Any) -> None:
    box = client.containers.run("busybox", "sleep 1000", detach=True)
    assert box.exec_run("echo hi") == (0, b"hi\n")
    code, (out, err) = box.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True)
    assert (code, out, err) == (4, b"o\n", b"e\n")
    code, stream = box.exec_run("seq 1 3", stream=True)
    assert b"".join(stream) == b"1\n2\n3\n"
    code, sock = box.exec_run("cat", stdin=True, socket=True, tty=True)
    sock._sock.sendall(b"word\n")
    sock._sock.settimeout(patiently(20))
    assert b"word" in sock._sock.recv(100)
    sock._sock.shutdown(socket.SHUT_WR)
    sock._sock.close()
    sock.close()
    assert box.exec_run("id -u", user="nobody")[1] == b"65534\n"


def test_what_is_missing_is_501(client: Any) -> None:
    with pytest.raises(docker.errors.APIError) as caught:
        client.plugins.install("some")
    assert caught.value.response.status_code == 501


def test_images(client: Any, name: str) -> None:
    image = client.images.get("busybox")
    assert image.tag(f"{name}", "v")
    archive = b"".join(client.images.get(f"{name}:v").save(named=f"{name}:v"))
    client.images.remove(f"{name}:v")
    assert [i.id for i in client.images.load(io.BytesIO(archive))] == [image.id]
    assert f"{name}:v" in client.images.get(image.id).tags
    assert image.history()
    assert f"{name}:v" in {t for i in client.images.list(name) for t in i.tags}
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("none-such")
    client.images.remove(f"{name}:v")


def test_volumes_and_networks(client: Any, name: str) -> None:
    volume = client.volumes.create(name, labels={"a": "1"})
    assert client.volumes.list(filters={"label": "a=1"}) == [volume]
    client.containers.run("busybox", "touch /v/x", volumes={name: {"bind": "/v", "mode": "rw"}}, remove=True)
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get(name)
    assert {n.name for n in client.networks.list()} == {"bridge", "host", "none"}
    assert client.networks.get("bridge").attrs["Driver"] == "bridge"
    network = client.networks.create(
        name, labels={"a": "1"}, options={"com.docker.network.driver.mtu": "1400"}
    )
    box = client.containers.run("busybox", "sleep 1000", detach=True, network=name)
    assert [c.id for c in client.networks.get(network.id).containers] == [box.id]
    network.disconnect(box)
    network.connect(box, aliases=["x"])
    box.remove(force=True)
    network.remove()
    with pytest.raises(docker.errors.NotFound):
        client.networks.get(name)


def test_events(client: Any, name: str) -> None:
    events = client.events(decode=True, filters={"container": name})
    wait_until(lambda: client.info()["NEventsListener"] == 1)
    threading.Thread(target=lambda: client.containers.run("busybox", "true", name=name, remove=True)).start()
    actions = []
    for event in events:
        actions.append(event["Action"])
        if event["Action"] == "destroy":
            break
    events.close()
    assert [a for a in actions if a != "attach"] == ["create", "start", "die", "destroy"]


@pytest.mark.parametrize("version", ["1.40", "1.44", "1.51", "auto"])
def test_older_versions(daemon: LabDaemon, version: str) -> None:
    with daemon.sdk(version=version) as client:
        assert client.ping()
        spoken = tuple(map(int, client.api.api_version.split(".")))
        assert version == "auto" or client.api.api_version == version
        assert client.containers.run("busybox", "echo x", remove=True) == b"x\n"
        used = client.df()
        # Since 1.53 only the sums, unless somebody asks for everything (API, "Version history").
        older = {"Images", "Containers", "Volumes", "BuildCache"}
        assert used.keys() >= (older if spoken < (1, 53) else {"ImageUsage", "ContainerUsage"})
        images = used["Images"] if spoken < (1, 53) else client.api.images()
        assert any("busybox:latest" in image["RepoTags"] for image in images)
        # Gone since 1.44 (API, "Version history").
        assert all(("VirtualSize" in image) == (spoken < (1, 44)) for image in client.api.images())
        assert client.version()["ApiVersion"] == "1.56"
