"""``wherry cp``, ``diff``, ``export`` and ``commit`` against a daemon, beside docker's client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemonlab import Done, LabDaemon
from patience import patiently

ENTRY = "from wherry.cli.main import entry; raise SystemExit(entry())"
SCRIPT = "mkdir -p /d/in; echo one >/d/one; ln -s /d/one /d/link; ln -s /d /dl; sleep 1000"


def wherry(daemon: LabDaemon, *arguments: str, cwd: Path, data: bytes = b"") -> Done:
    result = subprocess.run(
        [sys.executable, "-c", ENTRY, *arguments],
        input=data,
        capture_output=True,
        timeout=patiently(20),
        env=daemon.environment,
        cwd=cwd,
        check=False,
    )
    return Done(result.returncode, result.stdout, result.stderr)


def run(daemon: LabDaemon, name: str) -> None:
    """A container that has made its files."""
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", SCRIPT).ok()
    daemon.docker("exec", name, "sh", "-c", "until test -e /dl; do :; done").ok()


def tree(path: Path) -> list[tuple[str, str]]:
    """Every path below, with its content or target."""
    found = []
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            place = Path(directory) / name
            text = os.readlink(place) if place.is_symlink() else "" if place.is_dir() else place.read_text()
            found.append((str(place.relative_to(path)), text))
    return sorted(found)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/d", "new"), ("/d", "."), ("/d/", "new"), ("/d/.", "new"), ("/d/.", "."), ("/d/one", "new"),
        ("/d/one", "."), ("/d/one", "have/one"), ("/d/link", "new"), ("/dl", "new"), ("/dl/", "new"),
        ("/d/one", "have"), ("/d", "have"), ("/d/one", "none/new"), ("/d/one", "new/"), ("/d", "have/one"),
        ("/none", "new"), ("-L /d/link", "new"), ("-L /dl", "new"), ("-L /dl", "."), ("/d/one/", "new"),
    ],
)  # fmt: skip
def test_out_of_a_container_as_docker(
    daemon: LabDaemon, name: str, tmp_path: Path, source: str, target: str
) -> None:
    run(daemon, name)
    *flags, path = source.split(" ")
    places = {}
    for client in ("docker", "wherry"):
        place = tmp_path / client
        (place / "have").mkdir(parents=True)
        (place / "have" / "one").write_text("old")
        where = f"{place}/{target}"
        arguments = ("cp", *flags, f"{name}:{path}", where)
        done = daemon.docker(*arguments) if client == "docker" else wherry(daemon, *arguments, cwd=place)
        places[client] = (done.code != 0, tree(place))
        assert done.code == 0 or done.errors
    assert places["wherry"] == places["docker"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("s", "/w"), ("s", "/w/new"), ("s/.", "/w"), ("s/.", "/w/new"), ("s/f", "/w"), ("s/f", "/w/new"),
        ("s/f", "/w/have"), ("s", "/w/have"), ("s/f", "/w/none/new"), ("s/f", "/w/new/"), ("s/link", "/w"),
        ("-L s/link", "/w"), ("s/f", "/wl"), ("s", "/wl"), ("none", "/w"), ("s/f/", "/w"), ("s", "/w/."),
    ],
)  # fmt: skip
def test_into_a_container_as_docker(
    daemon: LabDaemon, name: str, tmp_path: Path, source: str, target: str
) -> None:
    (tmp_path / "s" / "in").mkdir(parents=True)
    (tmp_path / "s" / "f").write_text("file")
    (tmp_path / "s" / "link").symlink_to("f")
    *flags, path = source.split(" ")
    found = {}
    for client in ("docker", "wherry"):
        box = f"{name}-{client}"
        script = "mkdir /w; echo old >/w/have; ln -s /w /wl; sleep 1000"
        daemon.docker("run", "-d", "--name", box, "busybox", "sh", "-c", script).ok()
        daemon.docker("exec", box, "sh", "-c", "until test -e /wl; do :; done").ok()
        arguments = ("cp", *flags, f"{tmp_path}/{path}", f"{box}:{target}")
        done = daemon.docker(*arguments) if client == "docker" else wherry(daemon, *arguments, cwd=tmp_path)
        look = "find /w -exec stat -c '%N %F %a' {} +; cat /w/have /w/new"
        found[client] = (done.code != 0, daemon.docker("exec", box, "sh", "-c", look).out)
    assert found["wherry"] == found["docker"]


def test_streams_words_and_the_other_commands(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    run(daemon, name)
    packed = wherry(daemon, "cp", f"{name}:/d", "-", cwd=tmp_path).raw
    assert packed == daemon.docker("cp", f"{name}:/d", "-").raw
    assert wherry(daemon, "cp", "-", f"{name}:/tmp", cwd=tmp_path, data=packed).code == 0
    assert daemon.docker("exec", name, "cat", "/tmp/d/one").ok() == "one"
    (tmp_path / "f").write_text("1")
    said = wherry(daemon, "cp", "-q=false", "f", f"{name}:/tmp/", cwd=tmp_path)
    assert said.errors == f"Successfully copied 2.05kB to {name}:/tmp/\n"
    for arguments, words in (
        (("a:/x", "b:/y"), "copying between containers is not supported"),
        (("a", "b"), "must specify at least one container source"),
        ((f"{name}:", "x"), "source can not be empty"),
        (("f", "none:/x"), "No such container: none"),
    ):
        refused = wherry(daemon, "cp", *arguments, cwd=tmp_path)
        assert refused.code == 1 and words in refused.errors
    assert wherry(daemon, "diff", name, cwd=tmp_path).out == daemon.docker("diff", name).out
    assert wherry(daemon, "export", "-o", "x.tar", name, cwd=tmp_path).code == 0
    assert (tmp_path / "x.tar").read_bytes() == daemon.docker("export", name).raw
    image = wherry(daemon, "commit", "-m", "why", "--no-pause", name, f"{name}:1", cwd=tmp_path).ok()
    assert image == daemon.docker("images", "-q", "--no-trunc", f"{name}:1").ok()
