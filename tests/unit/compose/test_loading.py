"""Which files, names and environments a project has; extends, include, profiles; what does not fit
together."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import load, one, put

from wherry.compose import finding, naming, selecting
from wherry.compose.finding import WantedProject
from wherry.compose.places import ComposeError, FileError

A = "services:\n  a:\n    image: x\n"


def test_the_nearest_file_upwards_with_its_override(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"compose.yaml": A, "compose.override.yaml": "services: {a: {hostname: h}}\n", "in/side/x": ""},
    )
    project = load(tmp_path / "in" / "side")
    assert project.services["a"]["hostname"] == "h"
    assert (project.directory, project.name) == (str(tmp_path), finding.normalised(tmp_path.name))


def test_compose_yaml_goes_before_the_old_names(tmp_path: Path) -> None:
    put(tmp_path, {"docker-compose.yml": "services: {old: {image: x}}\n", "compose.yaml": A})
    project = load(tmp_path)
    assert list(project.services) == ["a"]
    assert any("multiple config files" in text for text in project.warnings)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="no configuration file provided: not found"):
        load(tmp_path, directory=str(tmp_path))


def test_files_and_more_from_the_env_file(tmp_path: Path) -> None:
    put(tmp_path, {".env": "COMPOSE_FILE=b.yaml:c.yaml\nCOMPOSE_PROJECT_NAME=fromenv\nTAG=1\n"})
    put(tmp_path, {"b.yaml": A, "c.yaml": "services: {a: {hostname: 'h$TAG'}}\n"})
    project = load(tmp_path)
    assert (project.name, project.services["a"]["hostname"]) == ("fromenv", "h1")


@pytest.mark.parametrize(
    ("flag", "environment", "in_file", "want"),
    [
        ("flag", "env", "file", "flag"),
        ("", "env", "file", "env"),
        ("", "", "file", "file"),
        ("", "", "${N:-deflt}", "deflt"),
        ("", "", "", "my-dir_1"),
    ],
)
def test_whose_name_counts(tmp_path: Path, flag: str, environment: str, in_file: str, want: str) -> None:
    where = tmp_path / "My-Dir_1!"
    put(where, {"compose.yaml": (f"name: {in_file}\n" if in_file else "") + A})
    env = {"COMPOSE_PROJECT_NAME": environment} if environment else {}
    assert load(where, name=flag, env=env).name == want
    assert naming.quick(WantedProject(name=flag, environment=env, cwd=str(where))) == want


def test_a_name_that_may_not_be_one(tmp_path: Path) -> None:
    put(tmp_path, {"compose.yaml": A})
    with pytest.raises(ComposeError, match='invalid project name "A b"'):
        load(tmp_path, name="A b")


def test_the_process_goes_before_the_env_file(tmp_path: Path) -> None:
    put(tmp_path, {".env": "X=file\nY=file\n", "compose.yaml": "services: {a: {image: '$X-$Y-$Z'}}\n"})
    project = load(tmp_path, env={"X": "process"})
    assert project.services["a"]["image"] == "process-file-"
    assert any('The "Z" variable is not set' in text for text in project.warnings)


def test_several_env_files_the_last_wins(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"1.env": "X=1\nY=1\n", "2.env": "X=2\nZ=$Y\n", "compose.yaml": "services: {a: {image: '$X$Y$Z'}}\n"},
    )
    from wherry.compose import loading

    wanted = WantedProject(env_files=["1.env", "2.env"], environment={}, cwd=str(tmp_path))
    assert loading.load(wanted).services["a"]["image"] == "211"


def test_extends_in_one_file_and_over_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "base/common.yaml": "services:\n  c:\n    image: x\n    volumes: ['./d:/d']\n    "
            "environment: {A: 1, B: 1}\n",
            "compose.yaml": (
                "services:\n  a:\n    extends: {file: base/common.yaml, service: c}\n    environment: "
                "{B: 2}\n"
                "  b:\n    extends: a\n    command: run\n"
            ),
        },
    )
    b = load(tmp_path).services["b"]
    assert b["environment"] == {"A": "1", "B": "2"}
    assert b["volumes"][0]["source"] == str(tmp_path / "base" / "d")
    assert (b["image"], b["command"], "extends" in b) == ("x", ["run"], False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {extends: b}, b: {extends: a}}", "goes in a circle"),
        ("services: {a: {extends: none}}", 'cannot extend service "a"'),
        ("services: {a: {extends: {file: gone.yaml, service: x}}}", "does not exist"),
    ],
)
def test_extends_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FileError, match=words):
        one(tmp_path, text)


def test_include_has_its_own_directory_and_environment(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "sub/.env": "TAG=sub\nBOTH=sub\n",
            "sub/compose.yaml": "services: {b: {image: 'x:$TAG-$BOTH', build: ., volumes: "
            "['v:/v']}}\nvolumes: {v: {}}\n",
            ".env": "BOTH=main\n",
            "compose.yaml": "include: [sub/compose.yaml]\nservices: {a: {image: x, depends_on: [b]}}\n",
        },
    )
    project = load(tmp_path, name="p")
    b = project.services["b"]
    assert (b["image"], b["build"]["context"]) == ("x:sub-main", str(tmp_path / "sub"))
    assert project.volumes["v"]["name"] == "p_v"


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (
            "include: [sub.yaml]\nservices: {b: {image: other}}\n",
            "services.b conflicts with imported resource",
        ),
        ("include: [gone.yaml]\n" + A, "does not exist"),
        ("include: [compose.yaml]\n" + A, "cycle detected"),
        (
            "include: ['https://example.com/x.git']\n" + A,
            "include of https://example.com/x.git is not on this machine",
        ),
    ],
)
def test_include_that_cannot_be(tmp_path: Path, main: str, words: str) -> None:
    put(tmp_path, {"sub.yaml": "services: {b: {image: x}}\n", "compose.yaml": main})
    with pytest.raises(FileError, match=words):
        load(tmp_path)


PROFILES = """
services:
  a: {image: x}
  b: {image: x, profiles: [debug]}
  c: {image: x, profiles: [debug, test], depends_on: [b]}
"""


@pytest.mark.parametrize(
    ("profiles", "env", "want"),
    [((), {}, "a"), (("debug",), {}, "abc"), ((), {"COMPOSE_PROFILES": "debug"}, "abc"), (("*",), {}, "abc")],
)
def test_profiles(tmp_path: Path, profiles: tuple[str, ...], env: dict[str, str], want: str) -> None:
    put(tmp_path, {"compose.yaml": PROFILES})
    assert "".join(load(tmp_path, profiles=profiles, env=env).services) == want


def test_a_service_that_is_named_needs_no_profile(tmp_path: Path) -> None:
    project = one(tmp_path, PROFILES)
    selecting.choose(project, ["c"])
    assert sorted(project.services) == ["b", "c"]


def test_names_of_what_is_made(tmp_path: Path) -> None:
    project = one(
        tmp_path,
        "name: p\n" + A + "    networks: [n, e, o]\nnetworks: {n: {}, e: {external: true}, o: {name: own}}\n",
    )
    assert [project.resource_name("networks", key) for key in "neo"] == ["p_n", "e", "own"]


def test_what_needs_what_without_saying_so(tmp_path: Path) -> None:
    project = one(
        tmp_path,
        "services:\n  a: {image: x}\n  b: {image: x, links: ['a:z']}\n  c: {image: x, network_mode: "
        "'service:a'}\n"
        "  d: {image: x, volumes_from: [b], depends_on: {a: {condition: service_healthy}}}\n",
    )
    assert {name: sorted(project.dependencies(name)) for name in "abcd"} == {
        "a": [],
        "b": ["a"],
        "c": ["a"],
        "d": ["a", "b"],
    }
    assert project.levels(project.services) == [["a"], ["b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {hostname: h}}", 'service "a" has neither an image nor a build context specified'),
        ("services: {a: {image: x, networks: [n]}}", 'service "a" refers to undefined network n'),
        ("services: {a: {image: x, volumes: ['vol:/x']}}", 'service "a" refers to undefined volume vol'),
        ("services: {a: {image: x, secrets: [s]}}", 'service "a" refers to undefined secret s'),
        ("services: {a: {image: x, configs: [c]}}", 'service "a" refers to undefined config c'),
        ("services: {a: {image: x, depends_on: [b]}}", 'service "a" depends on undefined service "b"'),
        (
            "services: {a: {image: x, depends_on: [a2]}, a2: {image: x, depends_on: [a]}}",
            "dependency cycle detected",
        ),
        ("services: {a: {image: x, network_mode: host, networks: [default]}}", "mutually exclusive"),
        (
            "services: {a: {image: x, mem_limit: 1m, deploy: {resources: {limits: {memory: 2m}}}}}",
            "can't set distinct values",
        ),
        (
            "services: {a: {image: x, scale: 2, deploy: {replicas: 3}}}",
            "can't set distinct values on 'scale'",
        ),
        ("services: {a: {image: x, container_name: n, scale: 2}}", "can't set container_name and scale"),
        (
            "services: {a: {image: x, volumes: ['/a:/x', {type: tmpfs, target: /y}], tmpfs: [/y]}}",
            "already mounted as",
        ),
        ("services: {a: {image: x, gpus: [{count: 1, device_ids: ['0']}]}}", "exclusive"),
        ("services: {a: {image: x}}\nsecrets: {s: {}}", "must have one of file or environment"),
        ("services: {}", "no services"),
        ("", "empty compose file"),
        ("services: {a b: {image: x}}", "is not a valid name"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ComposeError) as caught:
        one(tmp_path, text)
    assert words in caught.value.message, caught.value.message


def test_resources_that_nobody_uses_are_left_out(tmp_path: Path) -> None:
    project = one(tmp_path, A + "    volumes: ['data:/v']\nvolumes: {data: {}, w: {}}\nnetworks: {n: {}}\n")
    selecting.prune_resources(project)
    assert (list(project.volumes), list(project.networks)) == (["data"], ["default"])


def test_env_files_and_environment(tmp_path: Path) -> None:
    from wherry.compose.defaults import with_environment

    put(tmp_path, {"1.env": "A=1\nB=1\nC=$A\n", "2.env": "B=2\n", "raw.env": "D='$x'\n"})
    project = one(
        tmp_path,
        A + "    env_file: [1.env, 2.env, {path: gone.env, required: false}, {path: raw.env, format: raw}]\n"
        "    environment: [A, E=5, HOME]\n",
        HOME="/root",
    )
    found = with_environment(project, project.services["a"])["environment"]
    assert found == {"A": None, "B": "2", "C": "1", "D": "'$x'", "E": "5", "HOME": "/root"}


def test_label_files(tmp_path: Path) -> None:
    put(tmp_path, {"l.env": "a=1\nb=1\n"})
    project = one(tmp_path, A + "    label_file: l.env\n    labels: {b: 2}\n")
    assert project.services["a"]["labels"] == {"a": "1", "b": "2"}
