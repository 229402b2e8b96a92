"""What mmdebstrap's hooks say of its steps, run as it runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from wherry.images.debiansteps import hooks


def test_steps_and_sizes(tmp_path: Path) -> None:
    archives = tmp_path / "var/cache/apt/archives"
    archives.mkdir(parents=True)
    (archives / "a.deb").write_bytes(b"x" * 1_500_000)
    told: list[str] = []
    with hooks(told.append) as flags:
        for flag in flags:
            name, _, script = flag.removeprefix("--").partition("-hook=")
            assert name in ("setup", "extract", "essential", "customize")
            subprocess.run(["sh", "-c", script, "exec", str(tmp_path)], check=True, timeout=30)
    assert told[:2] == ["fetching packages", "unpacked 1.5MB of packages"]
    assert [words.partition(" ")[0] for words in told[2:]] == ["installing", "installed,"]
    assert all("1.5MB" in words for words in told[2:]), told


def test_what_is_no_step_is_left_alone(tmp_path: Path) -> None:
    told: list[str] = []
    with hooks(told.append) as flags:
        fifo = flags[0].partition(">")[2].partition(" ")[0]
        with open(fifo, "wb") as out:  # noqa: PTH123
            out.write(b"odd words\nsetup x\n" + b"y" * 10_000 + b"\nessential 2000000\n")
    assert told == ["fetching packages", "installing (2.0MB so far)"]


def test_it_ends_with_the_program_that_fails() -> None:
    with pytest.raises(RuntimeError, match="failed"), hooks(lambda _what: None):
        raise RuntimeError("failed")
