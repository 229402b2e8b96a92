"""Short and long forms of values (Compose specification, "Services"), and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.compose import schema, shorthand
from wherry.compose.kinds import go_float
from wherry.compose.places import FileError
from wherry.compose.scalars import duration, duration_text, number, size
from wherry.compose.yamlfile import documents


def service(text: str) -> Any:
    tree = documents(text.encode(), "f.yaml")[0]
    return schema.SERVICE.arrange(schema.SERVICE.read(tree, tree.at, "services.a"))


@pytest.mark.parametrize(
    ("text", "key", "want"),
    [
        ('command: a \'b c\' "d\\"e" f\\ g', "command", ["a", "b c", 'd"e', "f g"]),
        ("command: [a, b]", "command", ["a", "b"]),
        ("command: ''", "command", []),
        ("command:", "command", None),
        ("dns: 1.1.1.1", "dns", ["1.1.1.1"]),
        ("environment: [A=1, B, C=]", "environment", {"A": "1", "B": None, "C": ""}),
        (
            "environment: {A: 1, B: , C: true, D: 1.5}",
            "environment",
            {"A": "1", "B": None, "C": "true", "D": "1.5"},
        ),
        ("labels: [a=b, c]", "labels", {"a": "b", "c": ""}),
        ("labels: {a: }", "labels", {"a": ""}),
        ("extra_hosts: ['b:1.1.1.1', 'a=::1']", "extra_hosts", ["a=::1", "b=1.1.1.1"]),
        ("extra_hosts: {a: ['1.1.1.1', '2.2.2.2']}", "extra_hosts", ["a=1.1.1.1", "a=2.2.2.2"]),
        (
            "ulimits: {nofile: 5, core: {soft: 1, hard: 2}}",
            "ulimits",
            {"core": {"soft": 1, "hard": 2}, "nofile": 5},
        ),
        ("mem_limit: 1.5gb", "mem_limit", "1610612736"),
        ("stop_grace_period: 90s", "stop_grace_period", "1m30s"),
        ("cpus: '0.3'", "cpus", 0.3),
        ("healthcheck: {test: exit 0}", "healthcheck", {"test": ["CMD-SHELL", "exit 0"]}),
        ("gpus: all", "gpus", [{"count": -1}]),
        (
            "secrets: [a, {source: b, mode: 0400}]",
            "secrets",
            [{"source": "a"}, {"source": "b", "mode": "0400"}],
        ),
        ("networks: [a, b]", "networks", {"a": None, "b": None}),
        ("build: ./x", "build", {"context": "./x"}),
        ("init: false", "init", False),
        ("tty: false", "tty", None),
        ("scale: 0", "scale", 0),
    ],
)
def test_services(text: str, key: str, want: Any) -> None:
    assert service(text).get(key) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("80", [(80, None, None, "tcp")]),
        ("8080:80", [(80, "8080", None, "tcp")]),
        ("8080:80/udp", [(80, "8080", None, "udp")]),
        ("127.0.0.1:8080:80", [(80, "8080", "127.0.0.1", "tcp")]),
        ("127.0.0.1::80", [(80, None, "127.0.0.1", "tcp")]),
        ("[::1]:8080:80", [(80, "8080", "::1", "tcp")]),
        ("9-10:80", [(80, "9-10", None, "tcp")]),
        ("9-10:80-81", [(80, "9", None, "tcp"), (81, "10", None, "tcp")]),
        ("80-81", [(80, None, None, "tcp"), (81, None, None, "tcp")]),
    ],
)
def test_ports(text: str, want: list[tuple[int, str | None, str | None, str]]) -> None:
    found = service(f"ports: ['{text}']")["ports"]
    shown = [(p["target"], p.get("published"), p.get("host_ip"), p["protocol"]) for p in found]
    assert shown == want


@pytest.mark.parametrize(
    "text", ["a", "80:b", "1-0:1-0", "80/xyz", "x:80:80", "70000", "1-3:1-2", "", ":", "80:"]
)
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(FileError, match=r"^f.yaml:1:9: services.a.ports\[0\] is no port"):
        service(f"ports: ['{text}']")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("/x", {"type": "volume", "target": "/x", "volume": {}}),
        ("data:/x", {"type": "volume", "source": "data", "target": "/x", "volume": {}}),
        ("data:/x:ro,nocopy", {"type": "volume", "source": "data", "target": "/x", "read_only": True}),
        ("./a:/x", {"type": "bind", "source": "./a", "target": "/x", "bind": {"create_host_path": True}}),
        ("/a:/x:z", {"type": "bind", "source": "/a", "target": "/x"}),
    ],
)
def test_volumes(text: str, want: dict[str, Any]) -> None:
    found = service(f"volumes: ['{text}']")["volumes"][0]
    assert want.items() <= found.items(), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imaeg: x", "does not know the key 'imaeg'; did you mean 'image'?"),
        ("image: 5", 'services.a.image must be a string, not the number 5: write "5"'),
        ("image: [a]", "services.a.image must be a string, not a list"),
        ("image:", "services.a.image must be a string, not null"),
        ("ports: 80", "services.a.ports must be a list, not the number 80"),
        ("environment: a", "must be a mapping or a list of NAME=VALUE"),
        ("mem_limit: 5q", "must be a size in bytes, like 64m"),
        ("stop_grace_period: 5", "must be a duration, like 1m30s"),
        ("stop_grace_period: 5x", "must be a duration, like 1m30s"),
        ("cgroup: x", "must be one of host, private"),
        ("volumes: [{target: /x}]", 'lacks the key "type"'),
        ("depends_on: {b: {}}", 'lacks the key "condition"'),
        ("command: [1]", 'services.a.command[0] must be a string, not the number 1; write "1"'),
        ('command: "a \'b"', "is not a command line: a quote is not closed"),
        ("cap_add: [A, A]", "is in the list twice"),
        ("healthcheck: {test: [x]}", "must begin with CMD, CMD-SHELL or NONE"),
        ("ulimits: {nofile: {soft: 1}}", "soft and hard"),
        ("tty: maybe", "must be true or false"),
    ],
)
def test_errors_say_where_and_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(FileError) as caught:
        service(text)
    assert words in caught.value.message, caught.value.message
    assert caught.value.message.startswith("f.yaml:1:"), caught.value.message


def test_an_unknown_key_is_pointed_at_itself() -> None:
    with pytest.raises(FileError, match=r"^f.yaml:2:1: services.a does not know the key 'prots'"):
        service("image: x\nprots: [80]")


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (0.5, "0.5"),
        (1e6, "1e+06"),
        (123456789.5, "1.234567895e+08"),
        (100000.0, "100000"),
        (1e-5, "1e-05"),
        (1e-4, "0.0001"),
        (2.0, "2"),
        (1e21, "1e+21"),
        (-1.25, "-1.25"),
        (0.0, "0"),
    ],
)
def test_numbers_as_go_writes_them(value: float, want: str) -> None:
    assert go_float(value) == want


@pytest.mark.parametrize(
    ("text", "nanoseconds", "shown"),
    [
        ("90s", 90 * 10**9, "1m30s"),
        ("2m", 120 * 10**9, "2m0s"),
        ("1.5s", 15 * 10**8, "1.5s"),
        ("300ms", 3 * 10**8, "300ms"),
        ("25h", 90000 * 10**9, "25h0m0s"),
        ("1d", 86400 * 10**9, "24h0m0s"),
        ("0s", 0, "0s"),
        ("15us", 15000, "15µs"),
    ],
)
def test_durations(text: str, nanoseconds: int, shown: str) -> None:
    assert duration(text) == nanoseconds
    assert duration_text(nanoseconds) == shown


@pytest.mark.parametrize(
    ("text", "want"), [("64m", 64 << 20), ("1kb", 1024), ("2GiB", 2 << 30), ("7", 7), ("-1", -1)]
)
def test_sizes(text: str, want: int) -> None:
    assert size(text) == want


def test_cpus_have_32_bits() -> None:
    assert [number(v) for v in (0.1, "0.3", 1.5, 2)] == [0.1, 0.3, 1.5, 2.0]


@pytest.mark.parametrize(
    ("text", "want"), [("", []), ("a  b", ["a", "b"]), ("''", [""]), ("a''b", ["ab"]), (r"a\"b", ['a"b'])]
)
def test_words(text: str, want: list[str]) -> None:
    assert shorthand.words(text) == want
