"""Log drivers against little servers: what arrives, also after a restart, and servers that are dead."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from freeports import free_port
from logservers import Datagrams, Stream

pytestmark = pytest.mark.kernel


def opts(driver: str, *options: str) -> list[str]:
    return ["--log-driver", driver, *(word for o in options for word in ("--log-opt", o))]


def texts(lines: list[bytes]) -> list[bytes]:
    """Syslog messages without what comes before the text."""
    return [re.sub(rb"^<[0-9]+>.*?\[[0-9]+\]: ", b"", line) for line in lines]


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, last + 1)]


def directory_of(daemon: LabDaemon, name: str) -> Path:
    return daemon.root / "containers" / daemon.api("GET", f"/containers/{name}/json").json["Id"]


# ---- what arrives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["udp", "unixgram", "unix"])
def test_syslog_by_datagrams(daemon: LabDaemon, name: str, tmp_path: Path, kind: str) -> None:
    with Datagrams(None if kind == "udp" else tmp_path / "log") as server:
        address = f"udp://127.0.0.1:{server.port}" if kind == "udp" else f"{kind}://{tmp_path}/log"
        daemon.docker(
            "run", "--name", name, *opts("syslog", f"syslog-address={address}", "tag={{.Name}}"),
            "busybox", "sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.1; printf torn",
        ).ok()  # fmt: skip
        wait_until(lambda: len(server.got) == 3)
        assert texts(server.got) == [b"out", b"err", b"torn"]
        assert [m[:4] for m in server.got] == [b"<30>", b"<27>", b"<30>"]
        assert all(f" {name}[".encode() in m for m in server.got)
    assert daemon.docker("logs", name).raw == b"out\ntorn"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_syslog_by_streams(daemon: LabDaemon, name: str, tmp_path: Path, kind: str) -> None:
    with Stream(path=None if kind == "tcp" else tmp_path / "log") as server:
        address = f"tcp://127.0.0.1:{server.port}" if kind == "tcp" else f"unix://{tmp_path}/log"
        daemon.docker(
            "run", "--name", name, *opts("syslog", f"syslog-address={address}", "syslog-format=rfc3164"),
            "busybox", "seq", "5000",
        ).ok()  # fmt: skip
        wait_until(lambda: len(server.lines) == 5000)
        assert texts(server.lines) == numbers(1, 5000)


def test_gelf(daemon: LabDaemon, name: str) -> None:
    with Datagrams() as server:
        daemon.docker(
            "run", "--name", name, "-l", "app=shop", "-e", "TIER=front",
            *opts("gelf", f"gelf-address=udp://127.0.0.1:{server.port}", "labels=app", "env=TIER", "tag=t"),
            "busybox", "sh", "-c", "head -c 9000 /dev/urandom | hexdump -v -e '\"%02x\"' ; echo",
        ).ok()  # fmt: skip
        wait_until(lambda: len(server.gelf()) == 2)
        first, second = server.gelf()
        assert len(first["short_message"] + second["short_message"]) >= 9000
        assert (first["_container_name"], first["_tag"]) == (name, "t")
        assert (first["_app"], first["_TIER"]) == ("shop", "front")
        assert daemon.docker("logs", "--details", name).out.startswith("TIER=front,app=shop,tag=t ")


def test_gelf_by_tcp(daemon: LabDaemon, name: str) -> None:
    with Stream() as server:
        chosen = opts("gelf", f"gelf-address=tcp://127.0.0.1:{server.port}")
        daemon.docker("run", "--name", name, *chosen, "busybox", "seq", "100").ok()
        wait_until(lambda: bytes(server.data).count(b"\0") == 100)
        found = [json.loads(d)["short_message"] for d in bytes(server.data).split(b"\0")[:-1]]
        assert found == [str(n) for n in range(1, 101)]


@pytest.mark.parametrize("ack", [False, True])
def test_fluentd(daemon: LabDaemon, name: str, ack: bool) -> None:
    with Stream(ack=ack) as server:
        chosen = opts("fluentd", f"fluentd-address=127.0.0.1:{server.port}", "tag=docker.{{.Name}}",
                      f"fluentd-request-ack={str(ack).lower()}")  # fmt: skip
        daemon.docker("run", "--name", name, *chosen, "busybox", "seq", "300").ok()
        wait_until(lambda: len(server.forwarded()) == 300)
        assert [r["log"] for _, r in server.forwarded()] == [str(n) for n in range(1, 301)]
        tag, record = server.forwarded()[0]
        assert (tag, record["container_name"], record["source"]) == (f"docker.{name}", f"/{name}", "stdout")


def test_the_rest_of_a_container_that_removes_itself(daemon: LabDaemon) -> None:
    with Stream() as server:
        chosen = opts("syslog", f"syslog-address=tcp://127.0.0.1:{server.port}")
        daemon.docker("run", "--rm", *chosen, "busybox", "seq", "20000").ok()
        wait_until(lambda: len(server.lines) == 20000)


# ---- json-file -------------------------------------------------------------------------------------------


def json_lines(daemon: LabDaemon, name: str) -> list[dict[str, str]]:
    path = Path(daemon.api("GET", f"/containers/{name}/json").json["LogPath"])
    files = sorted(path.parent.glob(f"{path.name}*"), key=lambda p: -int(p.suffix[1:]) if p != path else 0)
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_json_file(daemon: LabDaemon, name: str) -> None:
    daemon.docker(
        "run", "--name", name, "-l", "app=shop",
        *opts("json-file", "labels=app", "max-size=100k", "max-file=50"),
        "busybox", "sh", "-c", "seq 5000; sleep 0.1; echo err >&2; sleep 0.1; printf torn",
    ).ok()  # fmt: skip
    wait_until(lambda: len(json_lines(daemon, name)) == 5002)
    found = json_lines(daemon, name)
    assert [f["log"] for f in found] == [f"{n}\n" for n in range(1, 5001)] + ["err\n", "torn"]
    assert found[5000]["stream"] == "stderr"
    assert found[0]["attrs"] == {"app": "shop"}
    assert re.fullmatch(r"20..-..-..T..:..:..\.[0-9]{9}Z", found[0]["time"])
    assert len(list(directory_of(daemon, name).glob("*-json.log.*"))) >= 3


def test_json_file_has_every_line_once_though_the_daemon_is_killed(
    fresh_daemon: LabDaemon, name: str
) -> None:
    daemon = fresh_daemon
    daemon.docker(
        "run", "-d", "--name", name, *opts("json-file", "max-size=1m", "max-file=100"), "busybox", "sh", "-c",
        "i=0; while [ $i -lt 60000 ]; do seq $((i+1)) $((i+500)); i=$((i+500)); usleep 15000; done;"
        "sleep 1000",
    ).ok()  # fmt: skip
    for count in (5000, 15000, 25000):
        wait_until(lambda n=count: len(json_lines(daemon, name)) > n)
        daemon.restart(signal.SIGKILL)
    wait_until(lambda: len(json_lines(daemon, name)) >= 60000)
    assert [f["log"] for f in json_lines(daemon, name)] == [f"{n}\n" for n in range(1, 60001)]
    assert daemon.docker("logs", name).raw.split() == numbers(1, 60000)


# ---- restarts and dead servers ---------------------------------------------------------------------------


def test_what_is_left_is_delivered_after_a_restart(fresh_daemon: LabDaemon, name: str) -> None:
    daemon, port = fresh_daemon, free_port()
    chosen = opts("syslog", f"syslog-address=tcp://127.0.0.1:{port}", "cache-max-size=64k")
    with Stream(port=port) as server:
        daemon.docker("run", "-d", "--name", name, *chosen, "busybox", "sh", "-c", "seq 100; sleep 1000").ok()
        wait_until(lambda: len(server.lines) == 100)
        daemon.restart()
        # One that ended while the server was away, too.
        other = f"{name}-2"
    daemon.docker("run", "--name", other, *chosen, "busybox", "seq", "30000").ok()
    wait_until(lambda: "trying again" in daemon.log)
    assert len(daemon.docker("logs", other).out.split()) == 30000
    daemon.end()
    with Stream(port=port) as server:
        daemon.start()
        wait_until(lambda: len(server.lines) == 30000)
        assert texts(server.lines) == numbers(1, 30000)


def test_a_dead_server_disturbs_nobody(daemon: LabDaemon, name: str) -> None:
    """Blocking: the container runs on, everything stays for the server, and comes when it does."""
    port = free_port()
    chosen = opts(
        "syslog", f"syslog-address=tcp://127.0.0.1:{port}", "cache-max-size=64k", "cache-max-file=2"
    )
    daemon.docker(
        "run", "--name", name, *chosen, "busybox", "sh", "-c",
        "for k in 1 2 3 4 5; do seq ${k}0001 ${k}4000; usleep 100000; done",
    ).ok()  # fmt: skip
    with Stream() as lively:
        other = opts("syslog", f"syslog-address=tcp://127.0.0.1:{lively.port}")
        daemon.docker("run", "--rm", *other, "busybox", "echo", "x").ok()
        wait_until(lambda: len(lively.lines) == 1)
    expected = [b"%d" % n for k in range(1, 6) for n in range(k * 10_000 + 1, k * 10_000 + 4001)]
    with Stream(port=port) as server:
        wait_until(lambda: len(server.lines) >= len(expected))
        assert texts(server.lines) == expected
    assert "log-drop" not in daemon.actions(container=[name])


@pytest.mark.parametrize("bound", ["mode=non-blocking", "spool-size=200k"])
def test_beyond_the_bound_lines_are_dropped_and_counted(daemon: LabDaemon, name: str, bound: str) -> None:
    port = free_port()
    bounds = [bound, *(["max-buffer-size=100k"] if "mode" in bound else [])]
    small = ("cache-max-size=64k", "cache-max-file=2")
    chosen = opts("syslog", f"syslog-address=tcp://127.0.0.1:{port}", *small, *bounds)
    daemon.docker(
        "run", "--name", name, *chosen, "busybox", "sh", "-c",
        "for k in 1 2 3 4 5; do seq ${k}0001 ${k}4000; usleep 200000; done; echo end",
    ).ok()  # fmt: skip
    wait_until(lambda: "log-drop" in daemon.actions(container=[name]))
    with Stream(port=port) as server:
        wait_until(lambda: server.lines and server.lines[-1].endswith(b"]: end"))
        found = [int(t) for t in texts(server.lines)[:-1]]
    assert found == sorted(set(found))
    assert 0 < len(found) < 20_000
    assert "bytes of the log of container" in daemon.log


def test_a_server_that_comes_back_gets_the_rest(daemon: LabDaemon, name: str) -> None:
    port = free_port()
    chosen = opts("fluentd", f"fluentd-address=127.0.0.1:{port}", "fluentd-request-ack=true")
    daemon.docker(
        "run", "-d", "--name", name, *chosen, "-v", "/go", "busybox", "sh", "-c",
        "seq 10; while [ ! -e /go/now ]; do usleep 1000; done; seq 11 20; sleep 1000",
    ).ok()  # fmt: skip
    with Stream(port=port, ack=True) as server:
        wait_until(lambda: len(server.forwarded()) == 10)
    daemon.docker("exec", name, "touch", "/go/now").ok()
    with Stream(port=port, ack=True) as server:
        wait_until(lambda: len(server.forwarded()) == 10)
        assert [r["log"] for _, r in server.forwarded()] == [str(n) for n in range(11, 21)]


def test_no_journal_here(daemon: LabDaemon) -> None:
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("this host has a journal")
    done = daemon.docker("create", "--log-driver", "journald", "busybox")
    assert "cannot use log driver journald: there is no journal" in done.errors
