"""``wherry logs A B C``."""

from __future__ import annotations

import os
import pty
import struct
from typing import Any

import pytest
from fakedaemon import Reply

from conftest import Run, Serve
from wherry.cli.main import main


def frame(stream: int, text: str) -> bytes:
    return struct.pack(">BxxxL", stream, len(text)) + text.encode()


def routes(names: dict[str, bytes], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, log in names.items():
        found[f"GET /containers/{name}/json"] = lambda _, n=name: {"Id": f"id-{n}", "Name": f"/{n}"}
        found[f"GET /containers/id-{name}/logs"] = lambda _, data=log: iter([data[:9], data[9:]])
    return found | more


def test_lines_of_all_in_the_order_of_time(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        routes(
            {
                "a": frame(1, "2026-01-01T00:00:01Z one\n") + frame(1, "2026-01-01T00:00:03Z three\n"),
                "long": frame(2, "2026-01-01T00:00:02Z two\n") + frame(1, "2026-01-01T00:00:04Z torn"),
            }
        )
    )
    code, out, err = wherry(daemon, "logs", "a", "long")
    assert (code, out, err) == (0, "a    | one\na    | three\nlong | torn\n", "long | two\n")
    assert daemon.asked("GET /containers/id-a/logs")[0].query["timestamps"] == "1"
    code, out, _ = wherry(daemon, "logs", "-t", "a", "long")
    assert out.splitlines()[0] == "a    | 2026-01-01T00:00:01Z one"


def test_following_all(serve: Serve, wherry: Run) -> None:
    daemon = serve(routes({"a": frame(1, "one\ntw") + frame(1, "o\n"), "b": frame(1, "x\n")}))
    code, out, _ = wherry(daemon, "logs", "-f", "a", "b")
    assert code == 0
    assert sorted(out.splitlines()) == ["a | one", "a | two", "b | x"]
    assert "timestamps" not in daemon.asked("GET /containers/id-a/logs")[0].query


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_one_that_fails_does_not_hide_the_others(serve: Serve, wherry: Run, follow: list[str]) -> None:
    missing = {"GET /containers/no/json": lambda _: Reply({"message": "No such container: no"}, 404)}
    daemon = serve(routes({"a": frame(1, "2026 one\n")}, **missing))
    code, out, err = wherry(daemon, "logs", *follow, "no", "a")
    assert code == 1
    assert "one" in out
    assert err == "no: Error response from daemon: No such container: no\n"


def test_a_name_cannot_write_on_the_terminal(serve: Serve, wherry: Run) -> None:
    hostile = {
        "GET /containers/b/json": lambda _: {"Id": "id-b", "Name": "/\x1b[31mred\n"},
        "GET /containers/id-b/logs": lambda _: iter([frame(1, "2026 x\n")]),
    }
    daemon = serve(routes({"a": b""}, **hostile))
    assert wherry(daemon, "logs", "a", "b")[1] == "\\x1b[31mred\\n | x\n"


@pytest.mark.parametrize("plain", [False, True])
def test_colours_on_a_terminal_only(serve: Serve, monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    daemon = serve(routes({"a": frame(1, "2026 x\n"), "b": frame(1, "2026 y\n")}))
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    near, far = pty.openpty()
    saved = os.dup(1)
    try:
        os.dup2(far, 1)
        assert main(["-H", daemon.host, "logs", "a", "b"]) == 0
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(far)
    out = os.read(near, 4096)
    os.close(near)
    assert out == (b"a | x\r\nb | y\r\n" if plain else b"\x1b[36ma | \x1b[0mx\r\n\x1b[33mb | \x1b[0my\r\n")
