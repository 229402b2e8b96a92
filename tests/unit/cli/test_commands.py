"""Whole command lines against a fake daemon: output, messages, exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import Exchange, FakeDaemon, Reply, frame

from conftest import Run, Serve
from wherry.cli import commands
from wherry.cli.main import main
from wherry.client import manifests
from wherry.errors import NotFound

ID = "a" * 64


def container(**more: Any) -> dict[str, Any]:
    return {
        "Id": ID,
        "Name": "/web",
        "State": {"Status": "running", "Running": True},
        "Config": {"Tty": False, "Labels": {"k": "v"}},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "9/udp": None}},
        **more,
    }


def test_ps(serve: Serve, wherry: Run) -> None:
    listed = {
        "Id": ID,
        "Names": ["/web"],
        "Image": "busybox",
        "Command": "sh",
        "Created": int(time.time()) - 200,
        "Status": "Up 3 minutes",
        "State": "running",
    }
    daemon = serve({"GET /containers/json": lambda x: [listed]})
    assert wherry(daemon, "ps", "-a", "-f", "name=web", "-n", "3") == (
        0,
        "CONTAINER ID   IMAGE     COMMAND   CREATED         STATUS         PORTS     NAMES\n"
        'aaaaaaaaaaaa   busybox   "sh"      3 minutes ago   Up 3 minutes             web\n',
        "",
    )
    assert daemon.asked("GET /containers/json")[0].query == {
        "all": "1",
        "limit": "3",
        "filters": '{"name":{"web":true}}',
    }
    assert wherry(daemon, "container", "ls", "-q") == (0, "a" * 12 + "\n", "")
    for layout, shown in (("raw", "container_id: "), ("table", ""), ("json", ""), ("{{.Names}}", "")):
        code, out, said = wherry(daemon, "ps", "-q", "--format", layout)
        assert (code, out) == (0, shown + "a" * 12 + "\n"), layout
        assert said == "WARNING: Ignoring custom format, because both --format and --quiet are set.\n"
    assert wherry(daemon, "ps", "--format", "table {{.Names}}\\t{{.State}}")[1] == (
        "NAMES     STATE\nweb       running\n"
    )
    code, out, _ = wherry(daemon, "ps", "--format", "json")
    assert (code, json.loads(out)["Names"]) == (0, "web")
    assert wherry(daemon, "ps", "--format", "{{.Foo}}") == (
        1,
        "",
        'failed to execute template: template: :1:2: executing "" at <.Foo>: '
        "can't evaluate field Foo in type *formatter.ContainerContext\n",
    )


@pytest.mark.parametrize(
    ("command", "path", "answer", "table", "raw"),
    [
        ("images", "GET /images/json", [{"Id": f"sha256:{ID}"}], "a" * 12, "image_id: " + "a" * 12),
        ("network ls", "GET /networks", [{"Id": ID, "Name": "n"}], "a" * 12, "network_id: " + "a" * 12),
        ("volume ls", "GET /volumes", {"Volumes": [{"Name": "v"}]}, "v", "name: v"),
    ],
)
def test_ids_alone_in_every_format(
    serve: Serve, wherry: Run, command: str, path: str, answer: Any, table: str, raw: str
) -> None:
    daemon = serve({path: lambda x: answer})
    for layout, wanted in (("", table), ("table", table), ("raw", raw)):
        chosen = ("--format", layout) if layout else ()
        assert wherry(daemon, *command.split(), "-q", *chosen) == (0, wanted + "\n", ""), layout


def test_the_configuration_chooses_the_format(serve: Serve, wherry: Run, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.json").write_text('{"psFormat": "{{.ID}}!"}')
    daemon = serve({"GET /containers/json": lambda x: [{"Id": ID}]})
    assert wherry(daemon, "ps")[1] == "a" * 12 + "!\n"


def test_going_on_past_failures(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {
            "DELETE /containers/one": lambda x: Reply(b"", 204),
            "DELETE /containers/two": lambda x: Reply({"message": "No such container: two"}, 404),
            "DELETE /containers/three": lambda x: Reply(b"", 204),
        }
    )
    assert wherry(daemon, "rm", "-v", "one", "two", "three") == (
        1,
        "one\nthree\n",
        "Error response from daemon: No such container: two\n",
    )
    assert daemon.asked("DELETE /containers/one")[0].query == {"v": "1"}
    assert wherry(daemon, "rm", "-f", "two")[0] == 0


def test_a_list_of_manifests_without_a_good_name_is_not_in_the_way_of_others(
    wherry: Run, tmp_path: Path
) -> None:
    store = manifests.ManifestStore(str(tmp_path / "config"))
    kept, *gone = (f"docker.io/library/{name}:1" for name in "abc")
    for name in (kept, *gone):
        store.put(name, [])
    bad, pinned = "BAD", f"a@sha256:{'0' * 64}"
    code, out, err = wherry(None, "manifest", "rm", "b:1", bad, pinned, "none:1", "c:1")
    assert (code, out) == (1, "")
    assert [bad in err, pinned in err, "none:1" in err] == [True] * 3 and len(err.splitlines()) == 3
    assert store.get(kept) == []
    for name in gone:
        with pytest.raises(NotFound):
            store.get(name)


def test_stopping_what_is_stopped(serve: Serve, wherry: Run) -> None:
    daemon = serve({"POST /containers/web/stop": lambda x: Reply(b"", 304)})
    assert wherry(daemon, "stop", "-t", "0", "web") == (0, "web\n", "")
    assert daemon.asked("POST /containers/web/stop")[0].query == {"t": "0"}


def test_inspect(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {"GET /containers/web/json": lambda x: container(), "GET /volumes/v": lambda x: {"Name": "v"}}
    )
    code, out, err = wherry(daemon, "inspect", "web", "v", "nope")
    assert (code, err) == (1, "Error: No such object: nope\n")
    assert [found.get("Name") for found in json.loads(out)] == ["/web", "v"]
    assert out.startswith('[\n    {\n        "Id": "aaa')
    assert wherry(daemon, "inspect", "-f", "{{.State.Status}} {{json .Config.Labels}}", "web")[1] == (
        'running {"k":"v"}\n'
    )
    code, out, err = wherry(daemon, "inspect", "-f", "{{.Foo}}", "web")
    assert (code, out) == (1, "\n")
    assert (
        err
        == 'template parsing error: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"\n'
    )
    assert wherry(daemon, "inspect", "-f", "{{.Foo", "web")[0] == 64
    assert wherry(daemon, "inspect", "--type", "foo", "web")[2].startswith(
        'unknown type: "foo": must be one of'
    )


def test_ports(serve: Serve, wherry: Run) -> None:
    daemon = serve({"GET /containers/web/json": lambda x: container()})
    assert wherry(daemon, "port", "web")[1] == "80/tcp -> 0.0.0.0:8080\n"
    assert wherry(daemon, "port", "web", "80")[1] == "0.0.0.0:8080\n"
    assert wherry(daemon, "port", "web", "9/udp") == (
        1,
        "",
        "Error: No public port '9/udp' published for web\n",
    )


def test_logs_are_sorted_to_both_streams(serve: Serve, wherry: Run) -> None:
    raw = frame(1, b"out\n") + frame(2, b"err\n")
    daemon = serve(
        {
            "GET /containers/web/json": lambda x: container(),
            f"GET /containers/{ID}/logs": lambda x: iter([raw[:11], raw[11:]]),
        }
    )
    assert wherry(daemon, "logs", "-t", "--tail", "5", "--since", "1700000000", "web") == (
        0,
        "out\n",
        "err\n",
    )
    assert daemon.asked(f"GET /containers/{ID}/logs")[0].query == {
        "stdout": "1",
        "stderr": "1",
        "tail": "5",
        "timestamps": "1",
        "since": "1700000000",
    }


def running(x: Exchange) -> None:
    x.upgrade()
    x.sock.sendall(frame(1, b"out\n") + frame(2, b"err\n"))
    x.sock.close()


def run_routes(exit_code: int = 7, start: Reply | None = None) -> dict[str, Any]:
    return {
        "POST /containers/create": lambda x: Reply({"Id": ID, "Warnings": ["careful"]}, 201),
        f"POST /containers/{ID}/attach": running,
        f"POST /containers/{ID}/wait": lambda x: iter([b'{"StatusCode":%d}' % exit_code]),
        f"POST /containers/{ID}/start": lambda x: start or Reply(b"", 204),
    }


def test_run(serve: Serve, wherry: Run, tmp_path: Path) -> None:
    daemon = serve(run_routes())
    cidfile = tmp_path / "cid"
    assert wherry(daemon, "run", "--rm", "--name", "n", "--cidfile", str(cidfile), "busybox", "sh") == (
        7,
        "out\n",
        "WARNING: careful\nerr\n",
    )
    order = [r.path.rpartition("/")[2] for r in daemon.requests if r.path != "/_ping"]
    assert order == ["create", "attach", "wait", "start"]
    assert daemon.asked(f"POST /containers/{ID}/wait")[0].query == {"condition": "removed"}
    assert cidfile.read_text() == ID
    assert wherry(daemon, "run", "--cidfile", str(cidfile), "busybox")[2].startswith(
        f"wherry: container ID file found, make sure the other container isn't running or delete {cidfile}\n"
    )


def test_run_detached(serve: Serve, wherry: Run) -> None:
    daemon = serve(run_routes())
    assert wherry(daemon, "run", "-d", "busybox")[:2] == (0, ID + "\n")
    assert daemon.asked("POST /containers/create")[0].json["AttachStdout"] is False


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("exec /x: permission denied", 126),
        ("port is already allocated", 125),
    ],
)
def test_exit_codes_of_a_failed_start(serve: Serve, wherry: Run, message: str, code: int) -> None:
    daemon = serve(run_routes(start=Reply({"message": message}, 400)))
    found, out, err = wherry(daemon, "run", "-d", "busybox", "x")
    assert (found, out) == (code, "")
    assert err.endswith(
        f"wherry: Error response from daemon: {message}\n\nRun 'wherry run --help' for more information\n"
    )


def test_a_missing_image(serve: Serve, wherry: Run) -> None:
    missing = Reply({"message": "No such image: nope:latest"}, 404)
    daemon = serve(
        {
            "POST /containers/create": lambda x: missing,
            "POST /images/create": lambda x: Reply({"message": "pulling is not implemented yet"}, 501),
        }
    )
    code, _, err = wherry(daemon, "run", "nope")
    assert code == 125
    assert err.startswith(
        "Unable to find image 'nope:latest' locally\nwherry: Error response from daemon: pulling is not"
    )
    assert daemon.asked("POST /images/create")[0].query == {"fromImage": "nope", "tag": "latest"}
    assert "Unable to find" not in wherry(daemon, "run", "--pull", "never", "nope")[2]


def test_exec(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {
            "GET /containers/web/json": lambda x: container(),
            "POST /containers/web/exec": lambda x: Reply({"Id": "e1"}, 201),
            "POST /exec/e1/start": running,
            "GET /exec/e1/json": lambda x: {"Running": False, "ExitCode": 5},
        }
    )
    assert wherry(daemon, "exec", "-e", "A=1", "web", "ls", "-l") == (5, "out\n", "err\n")
    body = daemon.asked("POST /containers/web/exec")[0].json
    assert (body["Cmd"], body["Env"], body["AttachStdin"]) == (["ls", "-l"], ["A=1"], False)
    assert wherry(daemon, "exec", "-it", "web", "sh")[2] == "the input device is not a TTY\n"


def test_load_and_progress(serve: Serve, wherry: Run, tmp_path: Path) -> None:
    def load(x: Exchange) -> Any:
        assert x.request.body == b"archive"
        return iter(
            [
                b'{"status":"Loading","id":"x","progressDetail":{"current":1,"total":2}}\n{"stream":"Loaded ',
                b'image: a:b\\n"}\n',
            ]
        )

    daemon = serve({"POST /images/load": load})
    (tmp_path / "a.tar").write_bytes(b"archive")
    assert wherry(daemon, "load", "-i", str(tmp_path / "a.tar")) == (0, "Loaded image: a:b\n", "")
    assert wherry(daemon, "load", "-i", "/nope")[2] == "open /nope: no such file or directory\n"


def test_an_error_at_the_end_of_a_progress_stream(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {
            "POST /images/bootstrap": lambda x: iter(
                [b'{"status":"Making x"}\n{"error":"e","errorDetail":{"message":"cannot make x: no"}}\n']
            )
        }
    )
    assert wherry(daemon, "image", "bootstrap", "debian", "--suite", "bookworm") == (
        1,
        "Making x\n",
        "cannot make x: no\n",
    )
    assert daemon.asked("POST /images/bootstrap")[0].query == {"name": "debian", "variant": "bookworm"}


def test_save_is_whole_or_not_there(serve: Serve, wherry: Run, tmp_path: Path) -> None:
    def broken(x: Exchange) -> None:
        x.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        x.sock.close()

    good = serve({"GET /images/get": lambda x: iter([b"tar", b"ball"])})
    bad = serve({"GET /images/get": broken})
    target = tmp_path / "out.tar"
    assert wherry(bad, "save", "-o", str(target), "a")[0] == 1
    assert [p.name for p in tmp_path.iterdir() if "tar" in p.name] == []
    assert wherry(good, "save", "-o", str(target), "a", "b")[0] == 0
    assert target.read_bytes() == b"tarball"


def test_prune_asks(serve: Serve, wherry: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    daemon = serve(
        {"POST /containers/prune": lambda x: {"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 1234567}}
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert wherry(daemon, "container", "prune") == (
        0,
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ",
        "",
    )
    assert daemon.asked("POST /containers/prune") == []
    assert wherry(daemon, "container", "prune", "-f")[1] == (
        "Deleted Containers:\na\nb\n\nTotal reclaimed space: 1.235MB\n"
    )


def test_events(serve: Serve, wherry: Run) -> None:
    event = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "b"}},
        "timeNano": 1_700_000_000_123_456_789,
    }
    daemon = serve({"GET /events": lambda x: iter([json.dumps(event).encode() + b"\n"])})
    code, out, _ = wherry(daemon, "events", "--until", "5s")
    assert code == 0 and out.endswith(" container start abc (image=b, name=web)\n")
    assert out[19:29] == ".123456789"
    assert (
        wherry(daemon, "events", "--format", "{{.Type}} {{.Actor.Attributes.name}}")[1] == "container web\n"
    )


def test_version_without_a_daemon(wherry: Run) -> None:
    code, out, err = wherry(None, "version")
    assert (code, out.startswith("Client: wherry\n Version:")) == (1, True)
    where = "unix:///nonexistent/wherry.sock"
    assert err == f"Cannot connect to the wherry daemon at {where}. Is the wherry daemon running?\n"


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["foo"], 1, "wherry: 'foo' is not a wherry command.\n"),
        (["imagse"], 1, "Did you mean this?\n\timage\n\timages\n"),
        (["swarm", "init"], 125, "wherry: 'swarm' is not implemented yet\n"),
        (["container", "foo"], 1, "wherry: unknown command: wherry container foo\n"),
        (
            ["rm"],
            1,
            "wherry: 'wherry rm' requires at least 1 argument\n\nUsage:  wherry rm [OPTIONS] CONTAINER",
        ),
        (["ps", "x"], 1, "wherry: 'wherry ps' accepts no arguments\n"),
        (["rename", "a"], 1, "wherry: 'wherry rename' requires 2 arguments\n"),
        (["port"], 1, "wherry: 'wherry port' requires at least 1 and at most 2 arguments\n"),
        (["volume", "create", "a", "b"], 1, "requires at most 1 argument\n"),
        (
            ["run", "--foo"],
            125,
            "unknown flag: --foo\n\nUsage:  wherry run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n",
        ),
        (["--foo"], 125, "unknown flag: --foo\n"),
        (["run", "busybox"], 125, "wherry: Cannot connect to the wherry daemon at unix:///nonexistent/"),
    ],
)
def test_what_cannot_be_understood(wherry: Run, argv: list[str], code: int, message: str) -> None:
    found, _, err = wherry(None, *argv)
    assert found == code
    assert message in err


def test_every_command_loads_and_has_help(capfd: pytest.CaptureFixture[str]) -> None:
    for entry in commands.TABLE:
        for path in entry.paths:
            assert main([*path.split(), "--help"]) == 0
            out = capfd.readouterr().out
            shown = path if " " not in path else commands.canonical(entry, path.split()[0])
            assert out.startswith(f"Usage:  wherry {shown}"), path
        names = [flag.name for flag in commands.load(entry).flags]
        assert len(names) == len(set(names)), entry.paths


def test_hostile_text_is_shown_as_text(serve: Serve, wherry: Run) -> None:
    daemon = serve({"DELETE /containers/x": lambda x: Reply({"message": "\x1b]0;owned\x07"}, 500)})
    assert wherry(daemon, "rm", "x")[2] == "Error response from daemon: \\x1b]0;owned\\x07\n"


def complete(daemon: FakeDaemon | None, wherry: Run, *words: str) -> list[str]:
    host = ["-H", daemon.host] if daemon else []
    return [
        line.partition("\t")[0] for line in wherry(None, "__complete", "--", *host, *words)[1].splitlines()
    ]


def test_completion(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {
            "GET /containers/json": lambda x: [{"Names": ["/web", "/db"], "Image": "b"}],
            "GET /images/json": lambda x: [{"RepoTags": ["busybox:latest", "e\x1bvil:1"]}],
            "GET /networks": lambda x: [{"Name": "bridge", "Driver": "bridge"}],
        }
    )
    assert "run" in complete(None, wherry, "") and "swarm" not in complete(None, wherry, "")
    assert complete(None, wherry, "im") == ["image", "images", "import"]
    assert (
        complete(None, wherry, "volume", "")
        == """clone cp create diff du export import inspect ls prune pull push rename rm
        schedule snapshot""".split()
    )
    assert complete(None, wherry, "run", "--net") == ["--network", "--network-alias"]
    assert complete(None, wherry, "run", "--pull", "") == ["always", "missing", "never"]
    assert complete(None, wherry, "load", "-i", "") == [":files"]
    assert complete(daemon, wherry, "stop", "w") == ["web"]
    assert complete(daemon, wherry, "run", "-it", "--name", "x", "") == ["busybox:latest"]
    assert complete(daemon, wherry, "run", "--network", "") == ["bridge"]
    assert complete(daemon, wherry, "run", "busybox", "-") == []
    assert complete(None, wherry, "stop", "") == []
    for shell in ("bash", "zsh", "fish"):
        assert "wherry __complete" in wherry(None, "completion", shell)[1]
