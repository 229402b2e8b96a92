"""Where the daemon listens and who may speak to it; its configuration; several of them on one host."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import TIMEOUT, LabDaemon, new_base, wait_until
from freeports import free_port
from patience import patiently

pytestmark = pytest.mark.kernel


def wherryd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wherry.daemon.entry", *arguments],
        capture_output=True,
        text=True,
        timeout=patiently(TIMEOUT),
        check=False,
    )


@pytest.fixture
def base() -> Iterator[Path]:
    path = new_base()
    try:
        yield path
    finally:
        subprocess.run(["rm", "-rf", str(path)], check=True)


# ---- configuration ---------------------------------------------------------------------------------------


def test_configuration_files(base: Path) -> None:
    file = base / "daemon.json"
    cases = {
        '{"nonsense": 1}': "nonsense",
        '{"mtu": "x"}': "mtu",
        "{": "cannot read configuration",
        '{"mtu": 5}': "invalid mtu",
        '{"bip": "x"}': "invalid bip",
        '{"dns": ["x"]}': "invalid dns",
        '{"log-level": "loud"}': "invalid log level",
        '{"default-address-pools": [{"base": "10.0.0.0/8", "size": 4}]}': "does not fit",
    }
    for text, words in cases.items():
        file.write_text(text)
        done = wherryd("--validate", "--config-file", str(file))
        assert done.returncode == 1, text
        assert words in done.stderr, done.stderr
    file.write_text('{"mtu": 1400}')
    twice = wherryd("--validate", "--config-file", str(file), "--mtu", "1300")
    assert "unable to configure the daemon with both flags and the file: mtu is in both" in twice.stderr
    assert wherryd("--validate", "--config-file", str(file)).stdout == "configuration OK\n"
    missing = wherryd("--validate", "--config-file", str(base / "none"))
    assert missing.returncode == 1
    assert wherryd("--nonsense").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "tcp://0.0.0.0:1"), "without TLS"),
        (("--host", "tcp://192.0.2.1:1"), "without TLS"),
        (("--host", "tcp://nonsense:1"), "not an IP address"),
        (("--host", "tcp://127.0.0.1:99999"), "expected tcp://"),
        (("--host", "http://x"), "unknown scheme"),
        (("--host", "unix://relative"), "must be absolute"),
        (("--host", "fd://"), "no socket was handed over"),
        (("--group", "no-such-group"), "no such group"),
        (("--storage-driver", "zfs"), "unknown storage driver"),
        (("--default-runtime", "kata"), "unknown default runtime"),
        (("--tlsverify",), "TLS needs"),
    ],
)
def test_refused_at_the_start(base: Path, arguments: tuple[str, ...], words: str) -> None:
    empty = base / "daemon.json"
    empty.write_text("{}")
    paths = ("--root", str(base / "r"), "--run", str(base / "x"), "--config-file", str(empty))
    done = wherryd(*paths, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (base / "x" / "wherry.sock").exists()


def test_another_driver_for_the_same_root_is_refused(fresh_daemon: LabDaemon) -> None:
    fresh_daemon.end()
    done = subprocess.run(
        [*fresh_daemon.argv(), "--storage-driver", "vfs"],
        capture_output=True,
        text=True,
        timeout=patiently(20),
        check=False,
    )
    assert done.returncode == 1
    assert "was made with overlay" in done.stderr


# ---- TCP -------------------------------------------------------------------------------------------------


def ask(port: int, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patiently(TIMEOUT))
    try:
        connection.request("GET", "/version", headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_tcp_on_loopback() -> None:
    port = free_port()
    base = new_base()
    socket_url = f"unix://{base}/x/wherry.sock"
    daemon = LabDaemon(base, "--host", socket_url, "--host", f"tcp://127.0.0.1:{port}")
    try:
        daemon.start()
        daemon.bootstrap()
        assert ask(port)[0] == 200
        assert ask(port, Host="localhost")[0] == 200
        assert ask(port, Host=f"127.0.0.1:{port}")[0] == 200
        for headers in (
            {"Host": "evil.example"},
            {"Host": f"evil.example:{port}"},
            {"Origin": "http://localhost"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
        ):
            status, body = ask(port, **headers)
            assert status == 403, headers
            assert json.loads(body)["message"]
        done = daemon.docker(
            "-H", f"tcp://127.0.0.1:{port}", "run", "--rm", "-i", "busybox", "cat", input=b"tcp"
        )
        assert done.ok() == "tcp"
        again = wherryd("--root", str(base / "r2"), "--run", str(base / "x2"), "--host", f"tcp://127.0.0.1:{port}",
                        "--config-file", str(base / "daemon.json"))  # fmt: skip
        assert again.returncode == 1
        assert "cannot listen on" in again.stderr
    finally:
        daemon.destroy()


def certificate(directory: Path, name: str, *extra: str) -> None:
    """A key and a certificate signed by the directory's CA."""
    subject = ["-subj", f"/CN={name}"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]
    subprocess.run(
        ["openssl", "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", *subject, *extra],
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=patiently(TIMEOUT),
    )


def test_tls_with_client_certificates(base: Path) -> None:
    certificate(base, "ca")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    certificate(base, "server", *signed, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    certificate(base, "client", *signed)
    certificate(base, "stranger")
    port = free_port()
    lab = new_base()
    tls = (
        "--tlsverify",
        "--tlscacert",
        f"{base}/ca.pem",
        "--tlscert",
        f"{base}/server.pem",
        "--tlskey",
        f"{base}/server.key",
    )
    daemon = LabDaemon(
        lab, "--host", f"unix://{lab}/x/wherry.sock", "--host", f"tcp://127.0.0.1:{port}", *tls
    )
    try:
        daemon.start()
        daemon.bootstrap()

        def version(cert: str | None, method: str = "GET", path: str = "/version") -> int:
            context = ssl.create_default_context(cafile=str(base / "ca.pem"))
            if cert is not None:
                context.load_cert_chain(base / f"{cert}.pem", base / f"{cert}.key")
            connection = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=patiently(TIMEOUT), context=context
            )
            try:
                connection.request(method, path)
                return connection.getresponse().status
            finally:
                connection.close()

        assert version("client") == 200
        assert version("client", "POST", "/volumes/create") == 201
        volumes = {"type": ["volume"]}
        (event,) = daemon.api("GET", "/events", since=1, until=str(time.time()), filters=volumes).lines
        assert event["Initiator"]["User"] == "client"
        assert event["Initiator"]["Address"].startswith("127.0.0.1:")
        for refused in (None, "stranger"):
            with pytest.raises(OSError):
                version(refused)
        with pytest.raises((OSError, http.client.HTTPException)):
            assert ask(port)[0] != 200
            raise OSError
        flags = (
            "--tlsverify",
            "--tlscacert",
            f"{base}/ca.pem",
            "--tlscert",
            f"{base}/client.pem",
            "--tlskey",
            f"{base}/client.key",
        )
        data = os.urandom(300_000)
        done = daemon.docker(
            "-H", f"tcp://127.0.0.1:{port}", *flags, "run", "--rm", "-i", "busybox", "cat", input=data
        )
        assert done.code == 0, done.errors
        assert done.raw == data
    finally:
        daemon.destroy()


# ---- several ---------------------------------------------------------------------------------------------


def test_several_daemons_side_by_side(daemon: LabDaemon, fresh_daemon: LabDaemon, name: str) -> None:
    for one in (daemon, fresh_daemon):
        one.docker("run", "-d", "--name", name, "-p", "127.0.0.1::80", "busybox", "sleep", "1000").ok()
    ports = {one.docker("port", name, "80").ok() for one in (daemon, fresh_daemon)}
    assert len(ports) == 2
    fresh_daemon.docker("rm", "-f", name).ok()
    assert daemon.state_of(name)["Running"]
    fresh_daemon.restart()
    assert daemon.docker("exec", name, "true").code == 0


def test_the_socket_is_private_and_goes_at_the_end(fresh_daemon: LabDaemon) -> None:
    assert fresh_daemon.socket.stat().st_mode & 0o007 == 0
    assert fresh_daemon.end() == 0
    assert not fresh_daemon.socket.exists()
    assert "Traceback" not in fresh_daemon.log
    fresh_daemon.start()
    fresh_daemon.end(9)
    assert fresh_daemon.socket.exists()
    fresh_daemon.start()
    wait_until(lambda: fresh_daemon.api("GET", "/_ping").status == 200)


def test_teardown_takes_everything_off_the_host(fresh_daemon: LabDaemon, name: str) -> None:
    bridge = f"wh-{hashlib.sha256(str(fresh_daemon.root).encode()).hexdigest()[:8]}"
    flags = ["--root", str(fresh_daemon.root), "--run", str(fresh_daemon.run)]
    fresh_daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    assert Path(f"/sys/class/net/{bridge}").exists()
    assert "another daemon uses" in wherryd(*flags, "--teardown").stderr
    fresh_daemon.end(signal.SIGTERM)
    assert f"container {name} " in wherryd(*flags, "--teardown").stderr
    assert Path(f"/sys/class/net/{bridge}").exists()
    fresh_daemon.start()
    fresh_daemon.docker("rm", "-f", name).ok()
    fresh_daemon.end(signal.SIGTERM)
    done = wherryd(*flags, "--teardown")
    assert done.returncode == 0, done.stderr
    assert not Path(f"/sys/class/net/{bridge}").exists()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert bridge.replace("wh-", "wherry_") not in tables
    fresh_daemon.start()
    fresh_daemon.docker("run", "--rm", "busybox", "true").ok()


def test_a_lost_database_stops_neither_start_nor_teardown(fresh_daemon: LabDaemon, name: str) -> None:
    bridge = f"wh-{hashlib.sha256(str(fresh_daemon.root).encode()).hexdigest()[:8]}"
    flags = ["--root", str(fresh_daemon.root), "--run", str(fresh_daemon.run)]
    fresh_daemon.docker("run", "-d", "--name", name, "-p", "127.0.0.1:0:80", "busybox", "sleep", "1000").ok()
    fresh_daemon.end(signal.SIGTERM)
    shutil.rmtree(fresh_daemon.root)
    refused = wherryd(*flags, "--teardown")
    assert refused.returncode == 1
    assert "still runs, and the database does not know it" in refused.stderr
    fresh_daemon.start()
    assert f"removed an interface without a network: {bridge}" in fresh_daemon.log
    assert Path(f"/sys/class/net/{bridge}").exists()
    fresh_daemon.end(signal.SIGTERM)
    shutil.rmtree(fresh_daemon.root)
    done = wherryd(*flags, "--teardown")
    assert done.returncode == 0, done.stderr
    assert not Path(f"/sys/class/net/{bridge}").exists()
    tables = subprocess.check_output(["nft", "list", "tables"], text=True)
    assert bridge.replace("wh-", "wherry_") not in tables
