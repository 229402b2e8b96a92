"""Two daemons and a dead one by their contexts, which the docker CLI made; one over a stand-in of ssh."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import DOCKER, LabDaemon, new_base, wait_until
from patience import patiently

MAIN = "from wherry.cli.main import entry; raise SystemExit(entry())"


class Clients:
    def __init__(self, place: Path) -> None:
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "WHERRY_"))}
        self.env |= {"DOCKER_CONFIG": str(place), "PATH": f"{place}/bin:{os.environ['PATH']}"}
        (place / "bin").mkdir(parents=True)
        self.bin = place / "bin"
        python = f"PYTHONPATH={shlex.quote(':'.join(sys.path))} exec {shlex.quote(sys.executable)}"
        self.add("wherry", f'{python} -c "{MAIN}" "$@"')
        self.add("ssh", 'while [ "$1" != -- ]; do shift; done; shift 2; exec /bin/sh -c "$*"')

    def add(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def run(self, *argv: str, stdin: bytes = b"", code: int = 0) -> tuple[str, str]:
        done = subprocess.run(argv, env=self.env, input=stdin, capture_output=True, timeout=patiently(30))
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def second() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        yield daemon.start()
    finally:
        daemon.destroy()


def test_two_daemons_and_a_dead_one(daemon: LabDaemon, second: LabDaemon, tmp_path: Path, name: str) -> None:
    clients = Clients(tmp_path)
    hosts = {
        "near": f"unix://{daemon.socket}",
        "remote": f"ssh://me@host{second.socket}",
        "gone": "unix:///nonexistent.sock",
    }
    for context, host in hosts.items():
        clients.run(DOCKER, "context", "create", context, "--docker", f"host={host}")
    assert clients.run("wherry", "context", "ls", "-q")[0].split() == ["default", *sorted(hosts)]

    archive = daemon.docker("save", "busybox").raw
    assert "Loaded image" in clients.run("wherry", "-c", "remote", "load", stdin=archive)[0]
    # Without a registry between them; "ssh" finds the far daemon as a login there would, by its environment.
    daemon.docker("tag", "busybox", f"{name}:sent").ok()
    clients.env["WHERRY_HOST"] = f"unix://{second.socket}"
    send = ("wherry", "-c", "near", "image", "push", f"ssh://me@host/{name}:sent")
    assert f"{name}:sent is at me@host already" in clients.run(*send)[0]
    second.docker("rmi", "busybox", f"{name}:sent").ok()
    assert f"Sent {name}:sent" in clients.run(*send)[0]
    assert second.tags() == {f"{name}:sent"}
    second.docker("tag", f"{name}:sent", "busybox").ok()
    del clients.env["WHERRY_HOST"]

    run = ("run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c")
    for context in ("near", "remote"):
        clients.run("wherry", "--context", context, *run, f"echo from {context}; exec sleep 100")
    wait_until(lambda: "remote" in clients.run("wherry", "-c", "remote", "logs", name)[0], "a line")

    row = "{{.Context}} {{.Names}} {{.State}}"
    out, err = clients.run("wherry", "ps", "--context", "all", "-f", f"name={name}", "--format", row, code=1)
    assert out == f"near {name} running\nremote {name} running\n"
    assert err.startswith("wherry: context gone: cannot connect to ")
    out, _ = clients.run("wherry", "logs", "--context", "near,remote", name)
    assert sorted(out.splitlines()) == [f"near/{name}   | from near", f"remote/{name} | from remote"]
    out, _ = clients.run("wherry", "stats", "--no-stream", "--context", "near,remote", name)
    assert [line.split()[0] for line in out.splitlines()] == ["CONTEXT", "near", "remote"]
    out, _ = clients.run(
        "wherry",
        "events",
        "--context",
        "near,remote",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        f"container={name}",
        "-f",
        "event=start",
    )
    assert [line.split()[0] for line in out.splitlines()] == ["near", "remote"]

    # Both clients' hijacked streams through ssh: the end of the input is not the end of the output.
    out, _ = clients.run(
        "wherry", "-c", "remote", "exec", "-i", name, "sh", "-c", "cat; echo after", stdin=b"in\n"
    )
    assert out == "in\nafter\n"
    clients.run("wherry", "-c", "remote", "rm", "-f", name)
    assert clients.run("wherry", "ps", "--context", "near,remote", "-qf", f"name={name}")[0].count("\n") == 1
