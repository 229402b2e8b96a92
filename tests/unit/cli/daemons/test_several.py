"""One command line that asks several daemons, of which one is dead, or says nothing, or lacks the object."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import Exchange, FakeDaemon, frame
from patience import patiently
from statreadings import reading

from conftest import Serve
from wherry.cli.command import Context
from wherry.cli.daemons import several
from wherry.cli.main import main
from wherry.client import discovery
from wherry.client.contexts import ContextDirectory
from wherry.client.discovery import WantedDaemon

Ask = Callable[..., tuple[int, str, str]]
DEAD = "cannot connect to the wherry daemon at unix:///nonexistent/w.sock. Is the wherry daemon running?"


@pytest.fixture
def ask(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run a command line with contexts: names with daemons, or with an address. A daemon of this host is none
    of them."""
    monkeypatch.setattr(discovery, "CANDIDATES", ())
    monkeypatch.setattr(discovery, "DEFAULT_HOST", "unix:///nonexistent/default.sock")

    def run(contexts: dict[str, FakeDaemon | str], *argv: str) -> tuple[int, str, str]:
        store = ContextDirectory(str(tmp_path / "config"))
        for name, daemon in contexts.items():
            host = daemon if isinstance(daemon, str) else daemon.host
            store.save(name, {"Name": name, "Endpoints": {"docker": {"Host": host}}}, {}, new=False)
        code = main([*argv])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def container(name: str) -> dict[str, Any]:
    return {
        "Id": name[0] * 64,
        "Names": [f"/{name}"],
        "Image": "busybox",
        "Command": "sh",
        "Created": int(time.time()) - 200,
        "Status": "Up 3 minutes",
        "State": "running",
    }


def listing(*names: str) -> dict[str, Any]:
    return {"GET /containers/json": lambda x: [container(name) for name in names]}


DEAD_HOST = "unix:///nonexistent/w.sock"


def test_ps(serve: Serve, ask: Ask) -> None:
    near, far = serve(listing("web", "db")), serve(listing("app"))
    both: dict[str, FakeDaemon | str] = {"near": near, "far": far}
    code, out, err = ask(both, "--context", "near,far", "ps", "-f", "status=running")
    assert (code, err) == (0, "")
    assert out == (
        "CONTEXT   CONTAINER ID   IMAGE     COMMAND   CREATED         STATUS         PORTS     NAMES\n"
        'far       aaaaaaaaaaaa   busybox   "sh"      3 minutes ago   Up 3 minutes             app\n'
        'near      wwwwwwwwwwww   busybox   "sh"      3 minutes ago   Up 3 minutes             web\n'
        'near      dddddddddddd   busybox   "sh"      3 minutes ago   Up 3 minutes             db\n'
    )
    for daemon in (near, far):
        assert daemon.asked("GET /containers/json")[0].query == {"filters": '{"status":{"running":true}}'}
    assert ask(both, "ps", "--context", "near,far", "-q")[1].split() == ["a" * 12, "w" * 12, "d" * 12]
    assert ask(both, "ps", "--context", "all", "--format", "{{.Context}}/{{.Names}}")[1].split() == [
        *("far/app", "near/web", "near/db")
    ]
    lines = ask(both, "ps", "--context", "near,far", "--format", "json")[1].splitlines()
    assert [(row["Context"], row["Names"]) for row in map(json.loads, lines)] == [
        *(("far", "app"), ("near", "web"), ("near", "db"))
    ]
    assert "CONTEXT" not in ask(both, "--context", "near", "ps")[1]
    assert ask(both, "--context", "near", "ps", "-n1", "--format", "{{.Context}}")[1].split()[0] == "near"
    assert "Context" not in json.loads(ask(both, "--context", "far", "ps", "--format", "json")[1])


def test_a_dead_daemon_is_named_and_not_in_the_way(serve: Serve, ask: Ask) -> None:
    near = serve(listing("web"))
    code, out, err = ask({"near": near, "dead": DEAD_HOST}, "--context", "all", "ps", "-q")
    assert (code, out, err) == (1, "w" * 12 + "\n", f"wherry: context dead: {DEAD}\n")
    code, out, err = ask({}, "ps", "--context", "dead,nope", "-q")
    assert (code, out) == (1, "")
    assert err.startswith(f"wherry: context dead: {DEAD}\nwherry: context nope: failed to initialize: ")


def test_a_silent_daemon_is_given_up(
    serve: Serve, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "PATIENCE", 0.2)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        given: dict[str, FakeDaemon | str] = {
            "near": serve(listing("web")),
            "mute": f"unix://{tmp_path}/mute",
        }
        code, out, err = ask(given, "--context", "all", "ps", "-q")
    assert (code, out) == (1, "w" * 12 + "\n")
    assert err == "wherry: context mute: cannot connect: no answer within 0.2 s\n"


def test_they_are_asked_at_the_same_time(serve: Serve, ask: Ask) -> None:
    """Each answers when all have been asked."""
    together = threading.Barrier(3, timeout=patiently(10))

    def answer(x: Exchange) -> Any:
        together.wait()
        return [container("web")]

    given: dict[str, FakeDaemon | str] = {
        n: serve({"GET /containers/json": answer}) for n in ("aa", "bb", "cc")
    }
    assert ask(given, "--context", "all", "ps", "--format", "{{.Context}}")[:2] == (0, "aa\nbb\ncc\n")


@pytest.mark.parametrize(
    "argv", [["rm", "x"], ["run", "x"], ["context", "ls"], ["inspect", "x"], ["pause", "x"]]
)
def test_what_writes_speaks_to_one(serve: Serve, ask: Ask, argv: list[str]) -> None:
    near = serve({})
    code, _, err = ask({"near": near, "far": near}, "--context", "near,far", *argv)
    assert code != 0
    assert "cannot use --context near,far: 'wherry " in err
    assert "speaks to one daemon" in err
    assert near.requests == []
    assert "speaks to one daemon" in ask({}, "--context", "all", *argv)[2]


def test_choosing(serve: Serve, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = serve(listing("web"))
    given: dict[str, FakeDaemon | str] = {"near": near, "v2": near, "v10": near}
    assert ask(given, "ps", "--context", "v10,v2,v2", "--format", "{{.Context}}")[1] == "v2\nv10\n"
    assert ask(given, "ps", "--context", "near,", "-q")[2] == (
        "cannot use --context near,: a context name is empty\n"
    )
    assert ask(given, "-H", near.host, "ps", "--context", "near,v2")[2] == (
        "conflicting options: cannot specify both --host and --context\n"
    )
    monkeypatch.setenv("DOCKER_HOST", near.host)
    assert ask(given, "ps", "--context", "all", "--format", "{{.Context}}")[1].split() == [
        *("default", "near", "v2", "v10")
    ]
    # One that another client has called all is meant by that name.
    assert ask({"all": near}, "ps", "--context", "all", "--format", "{{.Context}}")[1] == "all\n"


def test_the_other_tables(serve: Serve, ask: Ask) -> None:
    def routes(name: str) -> dict[str, Any]:
        image = {"Id": f"sha256:{name[0] * 64}", "RepoTags": [f"{name}:1"], "Created": 1, "Size": 1000}
        return {
            "GET /images/json": lambda x: [image],
            "GET /containers/stats": lambda x: [reading(name)],
            "GET /system/df": lambda x: {"Images": [image], "LayersSize": 1000},
            "GET /version": lambda x: {"Version": name, "ApiVersion": "1.56", "Os": "linux", "Arch": "amd64"},
            "GET /info": lambda x: {"Name": name, "NCPU": 2, "MemTotal": 1 << 30, "ContainersRunning": 7},
        }

    given: dict[str, FakeDaemon | str] = {"aa": serve(routes("one")), "bb": serve(routes("two"))}
    given["dead"] = DEAD_HOST

    def table(*argv: str) -> list[list[str]]:
        code, out, err = ask(given, "--context", "aa,dead,bb", *argv)
        assert (code, err) == (1, f"wherry: context dead: {DEAD}\n")
        return [line.split() for line in out.splitlines()]

    assert [row[:2] for row in table("images")] == [["CONTEXT", "REPOSITORY"], ["aa", "one"], ["bb", "two"]]
    assert [(row[0], row[2]) for row in table("stats", "--no-stream")][1:] == [("aa", "one"), ("bb", "two")]
    assert [row[:2] for row in table("system", "df")][1::4] == [["aa", "Images"], ["bb", "Images"]]
    assert [row[:2] for row in table("version")] == [["CONTEXT", "VERSION"], ["aa", "one"], ["bb", "two"]]
    assert [row[:2] for row in table("info")] == [["CONTEXT", "NAME"], ["aa", "one"], ["bb", "two"]]
    assert table("info", "--format", "{{.Context}} {{.Name}}") == [["aa", "one"], ["bb", "two"]]
    assert table("version", "--format", "{{.Context}} {{.Server.Version}} {{.Client.Context}}") == [
        *(["aa", "one", "aa"], ["bb", "two", "bb"])
    ]
    details = table("system", "df", "-v")
    assert ["aa", "one", "1"] in [row[:3] for row in details]
    assert ["bb", "two", "1"] in [row[:3] for row in details]
    objects = [json.loads(" ".join(row)) for row in table("system", "df", "-v", "--format", "json")]
    assert [(o["Context"], o["Images"][0]["Repository"]) for o in objects] == [("aa", "one"), ("bb", "two")]


def event(moment: int, name: str) -> bytes:
    actor = {"ID": name, "Attributes": {"name": name}}
    return json.dumps({"Type": "container", "Action": "start", "Actor": actor, "timeNano": moment}).encode()


def test_events_that_are_over_come_in_their_order(serve: Serve, ask: Ask) -> None:
    def routes(*events: bytes) -> dict[str, Any]:
        return {"GET /events": lambda x: iter([e + b"\n" for e in events])}

    given: dict[str, FakeDaemon | str] = {
        "aa": serve(routes(event(1, "x"), event(3, "z"))),
        "bbb": serve(routes(event(2, "y"))),
    }
    code, out, err = ask(given, "--context", "all", "events", "--until", "1000")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line[:6] for line in lines] == ["aa  | ", "bbb | ", "aa  | "]
    assert [line.rpartition("name=")[2] for line in lines] == ["x)", "y)", "z)"]
    shown = ask(
        given, "--context", "all", "events", "--until", "1000", "--format", "{{.Context}} {{.Actor.ID}}"
    )
    assert shown[1].split("\n")[:3] == ["aa x", "bbb y", "aa z"]
    shown = ask(given, "--context", "all", "events", "--until", "1000", "--format", "json")
    assert [json.loads(line)["Context"] for line in shown[1].splitlines()] == ["aa", "bbb", "aa"]


def test_live_events_are_merged(serve: Serve, ask: Ask) -> None:
    """Each daemon sends its second event when the other has sent its first: neither waits for an end."""
    sent = {"aa": threading.Event(), "bb": threading.Event()}

    def routes(own: str, other: str) -> dict[str, Any]:
        def events(x: Exchange) -> Iterator[bytes]:
            yield event(1, f"{own}1") + b"\n"
            sent[own].set()
            assert sent[other].wait(patiently(10))
            yield event(2, f"{own}2") + b"\n"

        return {"GET /events": events}

    given: dict[str, FakeDaemon | str] = {"aa": serve(routes("aa", "bb")), "bb": serve(routes("bb", "aa"))}
    given["dead"] = DEAD_HOST
    code, out, err = ask(given, "--context", "all", "events", "--format", "{{.Context}} {{.Actor.ID}}")
    assert (code, err) == (1, f"wherry: context dead: {DEAD}\n")
    lines = out.splitlines()
    assert sorted(lines) == ["aa aa1", "aa aa2", "bb bb1", "bb bb2"]
    for name in ("aa", "bb"):
        assert lines.index(f"{name} {name}1") < lines.index(f"{name} {name}2")


def test_logs(serve: Serve, ask: Ask) -> None:
    def routes(name: str, *lines: bytes) -> dict[str, Any]:
        found = {"Id": name[0] * 64, "Name": f"/{name}", "Config": {"Tty": False}}
        return {
            f"GET /containers/{name}/json": lambda x: found,
            f"GET /containers/{name[0] * 64}/logs": lambda x: iter(
                [frame(1, line + b"\n") for line in lines]
            ),
        }

    given: dict[str, FakeDaemon | str] = {
        "aa": serve(routes("web", b"2026-01-01T00:00:01Z one", b"2026-01-01T00:00:03Z three")),
        "bbb": serve(routes("web", b"2026-01-01T00:00:02Z two") | routes("db", b"2026-01-01T00:00:04Z four")),
        "dead": DEAD_HOST,
    }
    code, out, err = ask(given, "--context", "all", "logs", "web")
    assert (code, err) == (1, f"wherry: context dead: {DEAD}\n")
    assert out == "aa/web  | one\nbbb/web | two\naa/web  | three\n"
    code, out, err = ask(given, "logs", "--context", "aa,bbb", "-f", "web", "db")
    assert code == 1
    assert "wherry: context aa: db: " in err
    assert sorted(line.split(" | ")[0].strip() for line in out.splitlines()) == [
        *("aa/web", "aa/web", "bbb/db", "bbb/web")
    ]


def test_live_statistics_do_not_wait_for_a_daemon_that_stops_sending(serve: Serve, ask: Ask) -> None:
    over = threading.Event()

    def ticking(x: Exchange) -> Iterator[bytes]:
        for _ in range(4):
            yield json.dumps([reading("web")]).encode() + b"\n"
        over.set()

    def stuck(x: Exchange) -> Iterator[bytes]:
        yield json.dumps([reading("db")]).encode() + b"\n"
        assert over.wait(patiently(10))

    given: dict[str, FakeDaemon | str] = {
        "aa": serve({"GET /containers/stats": ticking}),
        "bb": serve({"GET /containers/stats": stuck}),
    }
    code, out, _ = ask(given, "--context", "all", "stats", "--format", "{{.Context}} {{.Name}}")
    lines = out.splitlines()
    assert code == 0
    assert lines.count("aa web") >= 3


def test_a_defect_of_ours_is_no_dead_daemon(serve: Serve, ask: Ask) -> None:
    near = serve(listing("web"))
    ask({"near": near, "far": near})
    ctx = Context(WantedDaemon(context="near,far"), several=["far", "near"])

    def broken(member: Context) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        several.ask(ctx, broken)
