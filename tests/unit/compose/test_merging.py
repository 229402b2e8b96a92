"""Several files (Compose specification, "Merge"): by example, and what holds of any two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import load, put

from wherry.compose import hashing, merging, schema
from wherry.compose.places import Map, copied
from wherry.compose.yamlfile import documents

BASE = "services:\n  a:\n    image: x\n"


def merged(where: Path, below: str, above: str) -> Any:
    def service(text: str) -> str:
        return BASE + "".join(f"    {line}\n" for line in text.splitlines())

    put(where, {"b.yaml": service(below), "o.yaml": service(above)})
    project = load(where, "b.yaml", "o.yaml")
    return hashing.written(project.services["a"])


@pytest.mark.parametrize(
    ("below", "above", "key", "want"),
    [
        ("command: a b", "command: c", "command", ["c"]),
        ("entrypoint: [a, b]", "entrypoint: [c]", "entrypoint", ["c"]),
        (
            "environment: {A: 1, B: 2}",
            "environment: [B=3, C=4]",
            "environment",
            {"A": "1", "B": "3", "C": "4"},
        ),
        ("labels: [a=b]", "labels: {c: d}", "labels", {"a": "b", "c": "d"}),
        ("cap_add: [A]", "cap_add: [B]", "cap_add", ["A", "B"]),
        ("dns: 1.1.1.1", "dns: [2.2.2.2]", "dns", ["1.1.1.1", "2.2.2.2"]),
        ("expose: ['1']", "expose: ['1', '2']", "expose", ["1", "2"]),
        ("tmpfs: /a:size=1m", "tmpfs: /a:size=2m", "tmpfs", ["/a:size=2m"]),
        (
            "healthcheck: {test: a, retries: 3}",
            "healthcheck: {test: b}",
            "healthcheck",
            {"test": ["CMD-SHELL", "b"], "retries": 3},
        ),
        ("logging: {driver: a, options: {x: y}}", "logging: {driver: b}", "logging", {"driver": "b"}),
        (
            "logging: {driver: a, options: {x: y}}",
            "logging: {options: {z: w}}",
            "logging",
            {"driver": "a", "options": {"x": "y", "z": "w"}},
        ),
        (
            "ulimits: {nofile: 1}",
            "ulimits: {nofile: {soft: 2, hard: 3}}",
            "ulimits",
            {"nofile": {"soft": 2, "hard": 3}},
        ),
        ("labels: {a: b}", "labels: !reset {}", "labels", None),
        ("cap_add: [A, B]", "cap_add: !override [C]", "cap_add", ["C"]),
        ("hostname: h", "hostname: !reset null", "hostname", None),
        (
            "ports: ['80:80']",
            "ports: !override ['81:81']",
            "ports",
            [{"mode": "ingress", "target": 81, "published": "81", "protocol": "tcp"}],
        ),
        (
            "extra_hosts: ['a:1.1.1.1']",
            "extra_hosts: ['b:2.2.2.2']",
            "extra_hosts",
            ["a=1.1.1.1", "b=2.2.2.2"],
        ),
    ],
)
def test_keys(tmp_path: Path, below: str, above: str, key: str, want: Any) -> None:
    assert merged(tmp_path, below, above).get(key) == want


def test_ports_are_known_by_all_they_have(tmp_path: Path) -> None:
    found = merged(tmp_path, "ports: ['80:80', '81:81']", "ports: ['80:80', '127.0.0.1:80:80']")["ports"]
    assert [(p["target"], p.get("host_ip")) for p in found] == [(80, None), (81, None), (80, "127.0.0.1")]


def test_volumes_are_known_by_their_target(tmp_path: Path) -> None:
    found = merged(tmp_path, "volumes: ['/a:/x', '/b:/y']", "volumes: ['/c:/x:ro']")["volumes"]
    assert [(v["source"], v["target"], v.get("read_only")) for v in found] == [
        ("/c", "/x", True),
        ("/b", "/y", None),
    ]


def test_a_network_of_a_service_is_added_to(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "b.yaml": BASE + "    networks: {n: {aliases: [a]}}\nnetworks: {n: {}}\n",
            "o.yaml": "services: {a: {networks: {n: {aliases: [b], priority: 3}, m: }}}\nnetworks: {m: {}}\n",
        },
    )
    found = load(tmp_path, "b.yaml", "o.yaml").services["a"]["networks"]
    assert found == {"n": {"aliases": ["a", "b"], "priority": 3}, "m": None}


def test_a_value_remembers_the_file_it_comes_from(tmp_path: Path) -> None:
    put(tmp_path, {"b.yaml": BASE, "o.yaml": "services:\n  a:\n    image: y\n    hostname: h\n"})
    service = load(tmp_path, "b.yaml", "o.yaml").services["a"]
    assert [Path(str(service.place(key))).name for key in ("image", "hostname")] == [
        "o.yaml:3:12",
        "o.yaml:4:15",
    ]


SERVICES = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["a", "b"]),
        "environment": st.dictionaries(st.sampled_from("ABC"), st.sampled_from("xyz"), max_size=3),
        "cap_add": st.lists(st.sampled_from("XYZ"), unique=True, max_size=3),
        "dns": st.lists(st.sampled_from(["1", "2"]), unique=True, max_size=2),
        "command": st.sampled_from(["a", "b c"]),
        "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
    },
)


def layer(service: dict[str, Any]) -> Map:
    import json

    tree = documents(json.dumps({"services": {"a": service}}).encode(), "f")[0]
    read: Map = schema.PROJECT.read(tree, tree.at, "")
    return read


@settings(max_examples=150, deadline=None)
@given(SERVICES, SERVICES, SERVICES)
def test_merging_three_files_needs_no_brackets(a: Any, b: Any, c: Any) -> None:
    one, two, three = layer(a), layer(b), layer(c)
    left = merging.merge(merging.merge(one, two), three)
    right = merging.merge(one, merging.merge(two, three))
    assert left == right


@settings(max_examples=100, deadline=None)
@given(SERVICES, SERVICES)
def test_merging_changes_neither_side(a: Any, b: Any) -> None:
    one, two = layer(a), layer(b)
    before = copied(one), copied(two)
    merging.merge(one, two)
    assert (one, two) == before


@settings(max_examples=100, deadline=None)
@given(SERVICES)
def test_a_file_over_itself_says_nothing_new(a: Any) -> None:
    assert merging.merge(layer(a), layer(a)) == layer(a)


@settings(max_examples=100, deadline=None)
@given(SERVICES, SERVICES)
def test_every_word_of_the_later_file_is_heard(a: Any, b: Any) -> None:
    found = merging.merge(layer(a), layer(b))["services"]["a"]
    for key, value in layer(b)["services"]["a"].items():
        if isinstance(value, dict):
            assert value.items() <= found[key].items()
        elif isinstance(value, list) and key != "command":
            assert set(value) <= set(found[key])
        else:
            assert found[key] == value
