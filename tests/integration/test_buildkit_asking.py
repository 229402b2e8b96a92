"""What the daemon asks the plugins for while it builds, and when; terminals; builds broken off."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buildkitlab import VERSIONS, BuildClient, read_until
from buildlab import cat, write
from daemonlab import LabDaemon, wait_until
from patience import patiently
from registrylab import LabRegistry, registry, skopeo

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("buildkit-asking")]


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, daemon: LabDaemon) -> BuildClient:
    return BuildClient(daemon, request.param)


@pytest.fixture
def newest(daemon: LabDaemon) -> BuildClient:
    return BuildClient(daemon, "new")


def test_secrets(client: BuildClient, tmp_path: Path, name: str) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=token,required=true cat /run/secrets/token > /seen\n"
    text += "RUN --mount=type=secret,id=other test ! -e /run/secrets/other\n"
    text += "RUN --mount=type=secret,id=token,env=TOKEN echo $TOKEN | wc -c > /count\n"
    write(tmp_path, {"Dockerfile": text, "token": f"secret of {name}"})
    client.built(tmp_path, "-t", name, "--secret", f"id=token,src={tmp_path}/token")
    assert cat(client.daemon, name, "/seen", "/count").split() == f"secret of {name}20".split()
    history = json.dumps(client.daemon.api("GET", f"/images/{name}/history").json)
    assert f"secret of {name}" not in history
    done = client.build(tmp_path, "--no-cache")
    assert done.code == 1 and "token" in done.errors and "not found" in done.errors
    assert "   2 | >>> RUN --mount=type=secret" in done.errors


class Agent:
    """An SSH agent that answers every question alike, and counts who asks."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, 0
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                self.asked += 1
                # SSH_AGENT_IDENTITIES_ANSWER with no keys (draft-miller-ssh-agent section 4.4)
                connection.sendall(b"\0\0\0\5\x0c\0\0\0\0")
                assert data

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent")
    yield made
    made.close()


def test_an_agent_is_lent_to_steps(client: BuildClient, tmp_path: Path, agent: Agent) -> None:
    ask = "printf '\\000\\000\\000\\001\\013' | nc local:$SSH_AUTH_SOCK -w 2 | od -An -tx1"
    text = f"FROM busybox\nRUN --mount=type=ssh,uid=7 stat -c %u $SSH_AUTH_SOCK; {ask} || true\n"
    context = write(tmp_path / "context", {"Dockerfile": text})
    done = client.built(context, "--ssh", f"default={agent.path}", "--no-cache")
    assert " 7\n" in done.errors
    write(context, {"Dockerfile": "FROM busybox\nRUN --mount=type=ssh,required=true true\n"})
    done = client.build(context, "--no-cache")
    assert done.code == 1 and "ssh" in done.errors


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabRegistry]:
    """A registry that wants to know who is there."""
    known = tmp_path_factory.mktemp("known") / "htpasswd"
    # the password is "secret"
    known.write_text("me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
    with registry(auth={"htpasswd": {"realm": "lab", "path": str(known)}}) as made:
        yield made


def test_credentials_are_the_clients(
    client: BuildClient, closed: LabRegistry, tmp_path: Path, name: str
) -> None:
    where = f"{closed.host}/private/{name}"
    write(tmp_path, {"Dockerfile": f"FROM scratch\nCOPY Dockerfile /{name}\n"})
    done = client.build(tmp_path, "-t", f"{where}:1", "--push")
    assert done.code == 1, "nobody said who it is"
    client.docker("login", "-u", "me", "-p", "secret", closed.host).ok()
    try:
        client.built(tmp_path, "-t", f"{where}:1", "--push")
        client.daemon.api("DELETE", f"/images/{where}:1?force=1")
        write(tmp_path, {"Dockerfile": f"FROM {where}:1\nCOPY Dockerfile /again\n"})
        client.built(tmp_path, "-t", name)
    finally:
        client.docker("logout", closed.host)
    assert skopeo("inspect", "--tls-verify=false", "--creds=me:secret", f"docker://{where}:1")


def test_progress_at_a_terminal(newest: BuildClient, tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM busybox\nRUN echo shown at once\n"})
    newest.daemon.home.joinpath(".docker").mkdir(exist_ok=True)
    plugin = newest.daemon.home / ".docker" / "cli-plugins"
    if not plugin.exists():
        plugin.symlink_to(newest.config / "cli-plugins")
    try:
        with newest.daemon.terminal("build", "--no-cache", str(tmp_path)) as terminal:
            seen = terminal.expect(b"FINISHED")
            assert b"RUN echo shown at once" in seen and b"[+] Building" in seen
            assert terminal.wait() == 0
    finally:
        plugin.unlink()


def test_ctrl_c_ends_a_build_at_once(client: BuildClient, tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"})
    with client.running("build", "--no-cache", "--progress=plain", str(tmp_path)) as process:
        read_until(process, b"begun\n")
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(patiently(20)) != 0
        assert time.monotonic() - began < patiently(4), "the client waits 5 s for a daemon that does not end"
    wait_until(lambda: client.history()[0]["Status"] == "Canceled", "the build has ended")


@pytest.mark.parametrize("moment", ["context", "step", "result"])
def test_a_client_that_dies(newest: BuildClient, tmp_path: Path, moment: str) -> None:
    """Whatever it was at, the build ends, nothing is left, and the next one is right."""
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY . /\n", "file": "x"})
    arguments = ["-o", "type=cacheonly"]
    if moment == "context":
        (context / "big").write_bytes(os.urandom(40_000_000))
        wanted = b"load build context"
    elif moment == "step":
        write(context, {"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"})
        wanted = b"begun\n"
    else:
        (context / "big").write_bytes(os.urandom(40_000_000))
        arguments = ["-o", str(tmp_path / "out")]
        wanted = b"exporting to client directory"
    with newest.running("build", "--no-cache", "--progress=plain", *arguments, str(context)) as process:
        read_until(process, wanted)
        os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: newest.history()[0]["Status"] != "Running", "the build has ended")
    write(context, {"Dockerfile": "FROM scratch\nCOPY file /\n"})
    newest.built(context, "-o", str(tmp_path / "next"))
    assert (tmp_path / "next" / "file").read_text() == "x"


def test_resources_hosts_and_networks(client: BuildClient, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN cat /etc/hosts; df -m /dev/shm | tail -1; ulimit -n; ls /sys/class/net\n"
    write(tmp_path, {"Dockerfile": text})
    done = client.built(
        tmp_path, "--no-cache", "--add-host", "named:10.1.2.3", "--add-host", "gate:host-gateway",
        "--shm-size", "32m", "--ulimit", "nofile=100:200", "--network", "none",
    )  # fmt: skip
    assert "10.1.2.3\tnamed" in done.errors and "\tgate" in done.errors
    assert " 32 " in done.errors and " 100\n" in done.errors and "eth0" not in done.errors
    done = client.build(tmp_path, "--network", "host", "--allow", "network.host", "--no-cache")
    assert done.code == 0, done.errors


def test_rules_about_sources(newest: BuildClient, tmp_path: Path) -> None:
    """Rules that the client sends are kept; what they deny is not used."""
    rule = {"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/busybox*"}}
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"version": 1, "rules": [rule]}))
    context = write(tmp_path / "context", {"Dockerfile": "FROM busybox\nRUN true\n"})
    told = {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(policy)}
    done = newest.docker("build", "--progress=plain", str(context), **told)
    assert done.code == 1 and "not allowed by policy" in done.errors
    rule["selector"]["identifier"] = "docker-image://docker.io/library/alpine*"
    policy.write_text(json.dumps({"version": 1, "rules": [rule]}))
    assert newest.docker("build", "--progress=plain", str(context), **told).code == 0
