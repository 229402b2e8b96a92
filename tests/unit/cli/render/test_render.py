"""Sizes, times, tables and rows in the words of Docker's client."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.cli.console import safe
from wherry.cli.grammar.times import timestamp
from wherry.cli.render import gojson, units
from wherry.cli.render.rows import ContainerLine, ImageLine, image_rows, ports_text
from wherry.cli.render.table import align
from wherry.errors import InvalidArgument

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60, "59 minutes"),
        (HOUR, "About an hour"),
        (1.6 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert units.duration(seconds) == words
    assert units.ago(1000, now=1000 + seconds) == words + " ago"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (999, "999B"), (1234, "1.23kB"), (4_270_000, "4.27MB"), (123_456_789, "123MB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert units.size(count) == shown


def test_other_sizes() -> None:
    assert units.size(123_456_789, 4) == "123.5MB"
    assert units.binary_size(8 << 30) == "8GiB"


def test_times() -> None:
    assert (
        units.parse_time("2025-01-01T01:00:00.5+01:00")
        == units.parse_time("2025-01-01T00:00:00Z")
        == 1735689600
    )
    assert units.parse_time("nonsense") == 0
    assert timestamp("2025-01-01T00:00:00Z") == "1735689600.000000000"
    assert timestamp("2025-01-01T01:30:00.25+01:30") == "1735689600.250000000"
    assert timestamp("10m", now=1000) == "400.000000000"
    assert timestamp("1700000000.5") == "1700000000.500000000"
    assert timestamp("1700000000") == "1700000000"
    assert timestamp("") == ""
    with pytest.raises(InvalidArgument, match='what: failed to parse value as time or duration: "x"'):
        timestamp("x", "what")


def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "PublicPort": public, "IP": ip, "Type": kind}


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80, 8080, "0.0.0.0")], "0.0.0.0:8080->80/tcp"),
        ([port(80, 8080, "::"), port(80, 8080, "0.0.0.0")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(p, p, "0.0.0.0") for p in (443, 444, 445)], "0.0.0.0:443-445->443-445/tcp"),
        ([port(1), port(2), port(4), port(2, kind="udp")], "1-2/tcp, 4/tcp, 2/udp"),
    ],
)
def test_ports(ports: list[dict[str, Any]], text: str) -> None:
    assert ports_text(ports) == text


def test_columns() -> None:
    assert align(["A\tB\tC", "longer than ten\t1\tx", "s\t2\ty"]) == (
        "A                 B         C\nlonger than ten   1         x\ns                 2         y\n"
    )
    assert align(["ONE", "two"]) == "ONE\ntwo\n"
    assert align(["a\tb", "no cells", "cccccccccccc\td"]) == "a         b\nno cells\ncccccccccccc   d\n"


def test_a_containers_row() -> None:
    row = ContainerLine(
        {
            "Id": "a" * 64,
            "Names": ["/web", "/other/alias"],
            "Image": "busybox:latest@sha256:" + "e" * 64,
            "Command": 'sh -c "while true; do :; done"',
            "SizeRw": 1234,
            "SizeRootFs": 5678901,
            "Labels": {"b": "2", "a": "1"},
            "Mounts": [{"Name": "d" * 64, "Driver": "local"}, {"Source": "/tmp"}],
            "NetworkSettings": {"Networks": {"z": {}, "bridge": {}}},
        }
    )
    shown = {name: row.value(name, ()) for name in row.FIELDS}
    assert shown["ID"] == "a" * 12
    assert (shown["Names"], shown["Image"]) == ("web", "busybox:latest")
    assert shown["Command"] == '"sh -c \\"while true; …"'
    assert shown["Size"] == "1.23kB (virtual 5.68MB)"
    assert (shown["Labels"], shown["Networks"], shown["LocalVolumes"]) == ("a=1,b=2", "bridge,z", "1")
    assert shown["Mounts"] == "d" * 14 + "…,/tmp"
    assert row.value("Label", ("b",)) == "2"


def test_names_cannot_drive_the_terminal() -> None:
    row = ContainerLine({"Id": "x", "Names": ["/\x1b[2Jevil\ttab\nline"], "State": "\x9b31m"})
    assert row.value("Names", ()) == "\\x1b[2Jevil\\ttab\\nline"
    assert row.value("State", ()) == "\\x9b31m"
    assert safe("ok é\n\x07") == "ok é\n\\x07"
    assert gojson.indented({"a": "\x1b\x9b<é>"}) == '{\n    "a": "\\u001b\\u009b<é>"\n}'


def test_images_rows() -> None:
    def rows(image: dict[str, Any], **kind: bool) -> list[tuple[str, str, str]]:
        return [(r.repository, r.tag, r.digest) for r in image_rows([image], truncate=True, **kind)]

    image = {"RepoTags": ["a:1", "reg:5000/b:2"], "RepoDigests": ["a@sha256:d", "c@sha256:e"]}
    assert rows(image, digests=False) == [
        ("a", "1", "<none>"),
        ("reg:5000/b", "2", "<none>"),
        ("c", "<none>", ""),
    ]
    assert rows(image, digests=True, digest_rows=True) == [
        ("a", "1", "sha256:d"),
        ("reg:5000/b", "2", "<none>"),
        ("c", "<none>", "sha256:e"),
    ]
    nameless = {"RepoTags": ["<none>:<none>"], "RepoDigests": None}
    assert rows(nameless, digests=False) == [("<none>", "<none>", "<none>")]
    assert ImageLine({"Id": "sha256:" + "a" * 64}, "a", "b", "c").value("ID", ()) == "a" * 12


def test_json_is_laid_out_as_dockers() -> None:
    assert gojson.indented([{"a": [], "b": {}, "c": [1, None], "d": "<&>"}]) == (
        '[\n    {\n        "a": [],\n        "b": {},\n        "c": [\n            1,\n            null\n'
        '        ],\n        "d": "<&>"\n    }\n]'
    )
    assert gojson.compact({"b": 1, "a": "<"}) == '{"b":1,"a":"<"}'
