"""Programs on read-only mounts that nobody sees and nobody can change."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.linux import readonlyprogram, syscalls
from wherry.linux.readonlyprogram import ReadOnlyProgram

pytestmark = pytest.mark.kernel
_AT_EMPTY_PATH = 0x1000
_MARK = readonlyprogram._VARIABLE.encode()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that knows of all this: true(1), with the variable's name behind its end."""
    made = tmp_path / "runtime"
    shutil.copy(shutil.which("true") or "/bin/true", made)
    with made.open("ab") as f:
        f.write(_MARK)
    return made


@pytest.fixture
def mounted(program: Path) -> Iterator[ReadOnlyProgram]:
    made = ReadOnlyProgram(str(program))
    yield made
    made.close()


def test_it_runs_from_its_mount(program: Path, mounted: ReadOnlyProgram) -> None:
    assert mounted.runnable() != str(program)
    subprocess.run(["runtime"], executable=mounted.runnable(), check=True)
    assert mounted.environment() == {_MARK.decode(): "1"}


def test_it_cannot_be_opened_for_writing_nor_made_writable(mounted: ReadOnlyProgram) -> None:
    path = mounted.runnable()
    with pytest.raises(OSError) as refused:
        os.close(os.open(path, os.O_RDWR))
    assert refused.value.errno == errno.EROFS
    with pytest.raises(OSError, match=path):
        syscalls.mount("none", path, "none", syscalls.MS_REMOUNT | syscalls.MS_BIND)
    fd = os.open(path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            syscalls.mount_setattr(fd, "", _AT_EMPTY_PATH, set_=syscalls.MS_NOSUID)
    finally:
        os.close(fd)


def test_nobody_sees_the_mount(program: Path, mounted: ReadOnlyProgram) -> None:
    assert str(program) not in Path("/proc/self/mountinfo").read_text()
    program.write_bytes(program.read_bytes() + b"in place")  # the program itself is as writable as it was


def test_a_program_that_was_replaced_is_taken_anew(program: Path, mounted: ReadOnlyProgram) -> None:
    before = os.stat(mounted.runnable()).st_ino
    assert os.stat(mounted.runnable()).st_ino == before
    newer = program.with_name("newer")
    shutil.copy(program, newer)
    newer.replace(program)
    assert os.stat(mounted.runnable()).st_ino == os.stat(program).st_ino != before


def test_a_program_that_is_gone_goes_on_as_it_was(program: Path, mounted: ReadOnlyProgram) -> None:
    program.unlink()
    subprocess.run(["runtime"], executable=mounted.runnable(), check=True)


@pytest.mark.parametrize("content", [b"#!/bin/sh\n# " + _MARK + b"\n", b"\x7fELF something else"])
def test_other_programs_are_run_as_they_are(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    made = ReadOnlyProgram(str(path))
    assert made.runnable() == str(path)
    assert made.environment() == {}
    made.close()


def test_the_mark_is_found_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF" + bytes(readonlyprogram._CHUNK - 10) + _MARK + bytes(100))
    assert readonlyprogram._knows(str(path))


def test_where_the_host_refuses_the_program_does_it_itself(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(syscalls, "mount", refused)
    made = ReadOnlyProgram(str(program))
    assert made.runnable() == str(program)
    assert made.environment() == {}
