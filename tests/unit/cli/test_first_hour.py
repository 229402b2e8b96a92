"""What a client does for who mistypes, closes descriptors, or has a plain terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wherry.cli import commands, console
from wherry.cli.building import screen
from wherry.cli.building.screen import with_advice
from wherry.cli.commands import imagetree
from wherry.cli.commands.completion import BASH_SCRIPT
from wherry.cli.main import main
from wherry.cli.render import table, units
from wherry.cli.render.rows import ContainerLine, NetworkLine, VolumeLine
from wherry.cli.render.secretrow import SecretLine
from wherry.cli.render.template import compile as template


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (0, 2)])
def test_closed_descriptors_are_opened_on_nothing(closed: tuple[int, ...]) -> None:
    script = "import sys; from wherry.cli.main import entry; sys.argv[1:] = ['--version']; sys.exit(entry())"
    program = [sys.executable, "-c", script]

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    done = subprocess.run(program, capture_output=True, preexec_fn=close, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"wherry version") == (1 not in closed)
    assert b"Traceback" not in done.stderr


def test_help_of_a_group_within_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["volume", "snapshot", "--help"], ["help", "volume", "snapshot"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert out.startswith("Usage:  wherry volume snapshot COMMAND") and "  restore " in out
    assert main(["volume", "snapshot", "lss"]) == 1
    err = capsys.readouterr().err
    assert "unknown command: wherry volume snapshot lss" in err and "\tls\n" in err


def test_what_was_mistyped_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["volume", "crate"]) == 1
    assert "Did you mean this?\n\tcreate" in capsys.readouterr().err
    assert main(["run", "--volum", "x"]) == 125
    err = capsys.readouterr().err
    assert err.startswith("unknown flag: --volum\n\nDid you mean this?\n\t--volume")
    assert main(["ps", "--zzzz"]) == 125
    assert "Did you mean" not in capsys.readouterr().err
    assert commands.suggestion("zzzz", "volume") == ""


def test_plain_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    try:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert console.can_draw(follower) and console.may_colour(follower)
        monkeypatch.setenv("NO_COLOR", "1")
        assert console.can_draw(follower) and not console.may_colour(follower)
        assert screen._coloured("\x1b[31m", "text") == "text"
        monkeypatch.setenv("TERM", "dumb")
        assert not console.can_draw(follower)
    finally:
        os.close(leader)
        os.close(follower)


def test_raw_formats_and_platforms() -> None:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    row = ContainerLine({"Id": "a" * 64, "Names": ["/n"], "ImageManifestDescriptor": {"platform": platform}})
    raw = template(ContainerLine.RAW).render(row).splitlines()
    assert raw[0] == f"container_id: {'a' * 12}" and raw[6] == "names: n" and raw[7] == "labels:"
    assert template("{{.Platform}} {{json .Platform}}").render(row).startswith("linux/arm64/v8 {")
    assert template("{{.Platform}} {{json .Platform}}").render(ContainerLine({})) == "<nil> null"
    assert template(VolumeLine.RAW).render(VolumeLine({"Name": "v", "Driver": "local"})) == (
        "name: v\ndriver: local\n"
    )
    assert "network_id: " in template(NetworkLine.RAW).render(NetworkLine({"Id": "x"}))
    assert table.split_format("raw", "") == (False, "raw")


def test_times_of_secrets() -> None:
    row = SecretLine({"CreatedAt": units.rfc3339(int(time.time()) - 120)})
    assert row.get_createdat() == "2 minutes ago"


def test_images_as_a_tree() -> None:
    def manifest(identifier: str, architecture: str, content: int) -> dict[str, object]:
        data = {"Platform": {"os": "linux", "architecture": architecture}, "Containers": []}
        sizes = {"Content": content, "Total": 2 * content}
        return {"ID": f"sha256:{identifier * 64}", "Kind": "image", "Size": sizes, "ImageData": data}

    image = {
        "Id": f"sha256:{'a' * 64}",
        "RepoTags": ["b:1", "a:1"],
        "Size": 9_000_000,
        "Containers": 1,
        "Manifests": [
            manifest("b", "amd64", 3_000_000),
            manifest("c", "arm64", 0),
            {"Kind": "attestation", "Size": {"Content": 1_000_000}},
        ],
    }
    assert imagetree.lines([image]) == [
        "IMAGE            ID             DISK USAGE   CONTENT SIZE   EXTRA",
        "a:1",
        "b:1              aaaaaaaaaaaa          9MB            4MB       U",
        "├─ linux/amd64   bbbbbbbbbbbb          6MB            3MB",
        "└─ linux/arm64   cccccccccccc           0B             0B",
    ]


def completed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["__complete", "--", *words]) == 0
    return [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]


def test_completion_of_filters_and_nested_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(capsys, "ps", "--filter", "na") == ["name="]
    assert completed(capsys, "volume", "ls", "-f", "d") == ["dangling=", "driver="]
    assert "until=" in completed(capsys, "image", "prune", "--filter", "")
    assert completed(capsys, "volume", "snapshot", "r") == ["restore", "rm"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_names_with_colons(tmp_path: Path) -> None:
    """The words of a line are bash's own: it takes what is beside a colon for words of their own."""
    fake = tmp_path / "wherry"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$0.asked"\nprintf "host:5000/app:%s\\n" one two\n')
    fake.chmod(0o755)
    script = BASH_SCRIPT + (
        'COMP_LINE="wherry run host:5000/app:t"; COMP_POINT=${#COMP_LINE}\n'
        "COMP_WORDS=(wherry run host : 5000/app : t); COMP_CWORD=6\n"
        '_wherry; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=True,
    )
    assert done.stdout.split() == ["one", "two"]
    asked = (tmp_path / "wherry.asked").read_text().split()
    assert asked == ["__complete", "--", "run", "host:5000/app:t"]


def test_a_step_that_does_not_trust_the_network() -> None:
    said = ["------", "#3 1.0 SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "------"]
    assert any("--secret id=ca" in line for line in with_advice(said))
    assert with_advice(["------", "no such file", "------"]) == ["------", "no such file", "------"]
