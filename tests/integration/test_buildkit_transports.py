"""How clients reach the builder: HTTP/1.1 that becomes HTTP/2, HTTP/2 from the first byte, TLS."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from buildkitlab import BuildClient, read_until
from buildlab import write
from daemonlab import LabDaemon, new_base, wait_until
from freeports import free_port
from test_daemon_listeners import certificate

from wherry.buildkit.proto import control_pb2, health_pb2

pytestmark = pytest.mark.kernel

WORKERS = "/moby.buildkit.v1.Control/ListWorkers"


def asked(channel: grpc.Channel) -> str:
    """The worker's id, by gRPC's own client."""
    method = channel.unary_unary(
        WORKERS,
        request_serializer=control_pb2.ListWorkersRequest.SerializeToString,
        response_deserializer=control_pb2.ListWorkersResponse.FromString,
    )
    (record,) = method(control_pb2.ListWorkersRequest(), timeout=20).record
    identifier: str = record.ID
    return identifier


def test_prior_knowledge_on_the_apis_socket(daemon: LabDaemon) -> None:
    known = daemon.api("GET", "/info").json["ID"]
    with grpc.insecure_channel(f"unix://{daemon.socket}") as channel:
        assert asked(channel) == known
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        unknown = channel.unary_unary("/x.Y/Z", lambda _: b"", lambda data: data)
        with pytest.raises(grpc.RpcError) as caught:
            unknown(None)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert daemon.api("GET", "/_ping").status == 200


def test_upgrades_that_are_none(daemon: LabDaemon) -> None:
    for path in ("/grpc", "/session"):
        assert daemon.api("POST", path).status == 400
    answer = daemon.api("POST", "/session", headers={"Connection": "Upgrade", "Upgrade": "h2c"})
    assert answer.status == 400 and "no id" in answer.message
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(daemon.socket))
        probe.sendall(b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        head = probe.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ") and b"Upgrade: h2c" in head
    # Clients look whether it is there, and close it without a byte: that is no error.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(daemon.socket))
        probe.sendall(b"PRI * HT")
        probe.shutdown(socket.SHUT_WR)
        assert not probe.recv(4096)
    assert daemon.api("GET", "/_ping").status == 200
    assert "Traceback" not in daemon.log


@pytest.fixture
def base() -> Iterator[Path]:
    path = new_base()
    try:
        yield path
    finally:
        subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.mark.parametrize("version", ["old", "new"])
def test_tcp_and_tls(base: Path, version: str) -> None:
    certificate(base, "ca")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    certificate(base, "server", *signed, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    certificate(base, "client", *signed)
    lab = new_base()
    port = free_port()
    tls = ("--tlsverify", "--tlscacert", f"{base}/ca.pem")
    own = ("--tlscert", f"{base}/server.pem", "--tlskey", f"{base}/server.key")
    daemon = LabDaemon(
        lab, "--host", f"unix://{lab}/x/wherry.sock", "--host", f"tcp://127.0.0.1:{port}", *tls, *own
    )
    try:
        daemon.start()
        daemon.bootstrap()
        context = write(base / "context", {"Dockerfile": "FROM busybox\nCOPY big /\nRUN sha256sum /big\n"})
        (context / "big").write_bytes(os.urandom(3_000_000))
        client = BuildClient(daemon, version)
        mine = ("--tlscert", f"{base}/client.pem", "--tlskey", f"{base}/client.key")
        done = client.docker(
            "-H", f"tcp://127.0.0.1:{port}", *tls, *mine, "build", "--progress=plain",
            "-o", str(base / "out"), str(context), DOCKER_HOST="",
        )  # fmt: skip
        assert done.code == 0, done.errors
        assert (base / "out" / "big").read_bytes() == (context / "big").read_bytes()
        credentials = grpc.ssl_channel_credentials(
            (base / "ca.pem").read_bytes(),
            (base / "client.key").read_bytes(),
            (base / "client.pem").read_bytes(),
        )
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            assert asked(channel)
        # Who takes both protocols wants the API, which speaks HTTP/1.1.
        offering = ssl.create_default_context(cafile=str(base / "ca.pem"))
        offering.load_cert_chain(base / "client.pem", base / "client.key")
        offering.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            offering.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
        ):
            assert secured.selected_alpn_protocol() == "http/1.1"
            secured.sendall(b"GET /_ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert secured.recv(64).startswith(b"HTTP/1.1 200")
    finally:
        daemon.destroy()


def test_who_does_not_build_pays_nothing() -> None:
    """An idle daemon has loaded neither HTTP/2 nor messages, and no face of BuildKit's."""
    code = "import sys, wherry.daemon.main, wherry.daemon.http2; print([n for n in sys.modules if n in "
    code += "('h2', 'hpack', 'google.protobuf', 'wherry.buildkit', 'wherry.rpc.connection')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.patient(600)
def test_killed_at_random_moments(mortal: LabDaemon, tmp_path: Path) -> None:
    """SIGKILL whenever: the next start leaves the host clean, and the next build is right."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    client = BuildClient(mortal, "new")
    text = "FROM busybox AS a\nRUN head -c 5000000 /dev/urandom >/a\nRUN sha256sum /a >/sum\n"
    text += "FROM busybox\nCOPY big /\nCOPY --from=a /sum /\nRUN sleep 0.3; cat /sum\n"
    context = write(tmp_path / "context", {"Dockerfile": text})
    (context / "big").write_bytes(os.urandom(20_000_000))
    for kill in range(25):
        flags = ["--no-cache"] if chance.random() < 0.5 else []
        output = chance.choice([["-t", "killed:1"], ["-o", str(tmp_path / "out")], ["-o", "type=cacheonly"]])
        with client.running("build", "--progress=plain", *flags, *output, str(context)) as process:
            if chance.random() < 0.2:
                read_until(process, b"load build context")
            else:
                time.sleep(chance.random() * 3)
            mortal.end(signal.SIGKILL)
        mortal.start()
        where = f"seed {seed}, kill {kill}"
        wait_until(lambda: all(one["Status"] != "Running" for one in client.history()), where)
        (context / "small").write_text(str(kill))
        write(context, {"Small.Dockerfile": "FROM scratch\nCOPY small big /\n"})
        done = client.build(context, "-f", str(context / "Small.Dockerfile"), "-o", str(tmp_path / "right"))
        assert done.code == 0, f"{where}: {done.errors}"
        assert (tmp_path / "right" / "small").read_text() == str(kill), where
        assert (tmp_path / "right" / "big").read_bytes() == (context / "big").read_bytes(), where
