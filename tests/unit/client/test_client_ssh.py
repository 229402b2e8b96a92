"""ssh:// with a program in PATH that is called ssh and runs the command here."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakedaemon import Exchange, FakeDaemon, frame
from patience import patiently

from wherry.client import containers, ssh, system
from wherry.client.api import Api, Hijacked
from wherry.client.endpoint import CannotConnect, DaemonEndpoint
from wherry.client.ssh import SshTarget
from wherry.client.transport import SHUT_WR
from wherry.errors import InvalidArgument

MAIN = "from wherry.cli.main import entry; raise SystemExit(entry())"


class Bin:
    """A PATH of our own, with what is put in it and the system's shell."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("sh", "cat", "sleep"):
            (place / name).symlink_to(f"/bin/{name}")

    def add(self, name: str, script: str) -> None:
        path = self.place / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    return Bin(place)


@pytest.fixture
def far(tmp_path: Path, path: Bin) -> Iterator[FakeDaemon]:
    """A daemon that ``wherry`` on the far side speaks to."""

    def attach(x: Exchange) -> None:
        x.upgrade()
        said = x.read_to_end()
        x.sock.sendall(frame(1, said.upper()))

    routes = {"GET /version": lambda x: {"Version": "far"}, "POST /containers/c/attach": attach}
    with FakeDaemon(tmp_path / "far.sock", routes) as daemon:
        python = f"PYTHONPATH={shlex.quote(':'.join(sys.path))} exec {shlex.quote(sys.executable)}"
        path.add("wherry", f'{python} -c "{MAIN}" -H {daemon.host} "$@"')
        # What sshd does: the words, joined by spaces, are the login shell's.
        note = f'printf "%s\\n" "$@" > {tmp_path}/argv'
        words = 'while [ "$1" != -- ]; do shift; done; shift 2'
        path.add("ssh", f'{note}\n{words}; exec /bin/sh -c "$*"')
        yield daemon


def test_a_request_and_a_stream(far: FakeDaemon, tmp_path: Path) -> None:
    with Api(DaemonEndpoint("ssh://me@far.example:2222")) as api:
        assert system.version(api)["Version"] == "far"
        argv = (tmp_path / "argv").read_text().split("\n")
        assert argv[:9] == [*"-o ConnectTimeout=30 -T -l me -p 2222 -- far.example".split()]
        with containers.attach(api, "c", stdin=True) as attached:
            attached.stream.send(b"hello")
            attached.stream.shutdown(SHUT_WR)
            assert to_end(attached) == frame(1, b"HELLO")


def to_end(attached: Hijacked) -> bytes:
    pieces = [attached.early]
    while piece := attached.stream.recv(4096):
        pieces.append(piece)
    return b"".join(pieces)


def test_docker_answers_where_wherry_is_not_there(far: FakeDaemon, path: Bin) -> None:
    os.rename(path.place / "wherry", path.place / "docker")
    with Api(DaemonEndpoint("ssh://far")) as api:
        assert system.version(api)["Version"] == "far"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Permission denied (publickey).' >&2; exit 255", "Permission denied (publickey)."),
        ("echo no; cat >/dev/null", "malformed HTTP response"),
        ("exit 1", "ssh ended with exit code 1: it said nothing"),
        ("cat >/dev/null & exec >&- 2>&-; exit 3", "ssh ended with exit code 3"),
        ("sleep 0.2; echo late >&2; exit 255", "ssh://far: ssh ended with exit code 255: late"),
    ],
)
def test_what_ssh_says_is_shown(path: Bin, script: str, message: str) -> None:
    path.add("ssh", script)
    with (
        pytest.raises(Exception, match=message.replace("(", r"\(").replace(")", r"\)")),
        Api(DaemonEndpoint("ssh://far")) as api,
    ):
        system.version(api)


def test_a_lot_on_stderr_blocks_nothing(far: FakeDaemon, path: Bin) -> None:
    real = (path.place / "ssh").read_text().removeprefix("#!/bin/sh\n")
    path.add(
        "ssh",
        "i=0; while [ $i -lt 3000 ]; do echo warning: something or other about a key >&2; "
        f"i=$((i+1)); done\n{real}",
    )
    with Api(DaemonEndpoint("ssh://far")) as api:
        assert system.version(api)["Version"] == "far"


def test_without_ssh(path: Bin) -> None:
    with pytest.raises(CannotConnect, match="ssh to far: No such file"):
        ssh.connect(DaemonEndpoint("ssh://far"))


def test_one_that_never_gets_through_is_ended(path: Bin, tmp_path: Path) -> None:
    path.add("ssh", f"echo $$ > {tmp_path}/pid; exec sleep 100")
    stream = ssh.connect(DaemonEndpoint("ssh://far"))
    stream.close()
    stream._listener.join(patiently(10))
    assert stream._process.returncode == -15


def test_targets() -> None:
    target = SshTarget("me@[fe80::1%eth0]:22/run/w.sock")
    assert (target.user, target.name, target.port, target.path) == ("me", "fe80::1%eth0", "22", "/run/w.sock")
    assert target.argv(5)[-3:-1] == ["--", "fe80::1%eth0"]
    assert "exec wherry -H unix:///run/w.sock system dial-stdio" in target.argv(5)[-1]
    assert SshTarget("host").argv(0.5) == [
        "ssh",
        "-o",
        "ConnectTimeout=1",
        "-T",
        "--",
        "host",
        ssh.REMOTE.format(options=""),
    ]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "me@",
            "@host",
            "-oProxyCommand=id",
            "-lroot@host",
            "me@-host",
            "a b",
            "h\nx",
            "$(id)",
            "me;id@h",
        ),
        *("h/a b", "h/$(id)", "h/'", "h:x", "h:0", "h:22?q=1", "h#f", "me:pw@h", "[-o]", "h/-x y"),
    ],
)
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(InvalidArgument):
        ssh.connect(DaemonEndpoint(f"ssh://{address}"))
