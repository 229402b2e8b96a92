from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.errors import InvalidArgument
from wherry.linux.users import User, lookup

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
name:x:1000:1001:::/bin/sh
1234:x:7:8::/seven:/bin/sh
bad line
odd:x:-1:x::/:
short:x:33:34
"""
GROUP = "root:x:0:\nwheel:x:10:name,other\nextra:x:11:name\n55:x:12:\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("name", User(1000, 1001, (10, 11, 1001), "/")),
        ("1000", User(1000, 1001, (10, 11, 1001), "/")),
        ("1234", User(1234, 0, (0,), "/")),  # nobody's number, though somebody's name
        ("7", User(7, 8, (8,), "/seven")),
        ("0", User(0, 0, (0,), "/root")),
        ("+7", User(7, 8, (8,), "/seven")),
        ("007", User(7, 8, (8,), "/seven")),
        ("99", User(99, 0, (0,), "/")),
        ("99:98", User(99, 98, (98,), "/")),
        ("name:wheel", User(1000, 10, (10,), "/")),
        ("name:1001", User(1000, 1001, (1001,), "/")),
        (":wheel", User(0, 10, (10,), "/root")),
        ("name:55", User(1000, 55, (55,), "/")),  # so is this group's
        ("name:12", User(1000, 12, (12,), "/")),
        ("name:", User(1000, 1001, (10, 11, 1001), "/")),
        ("short", User(33, 34, (34,), "/")),
        ("2147483647:2147483647", User(2147483647, 2147483647, (2147483647,), "/")),
    ],
)
def test_lookup(root_fd: int, spec: str, expected: User) -> None:
    assert lookup(root_fd, spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "who",
        "name:who",
        "2147483648",
        "4294967296",
        "0:4294967296",
        "-1",
        "name:-1",
        "odd",
        "1_0",
        "²",
        "9" * 5000,
        "1 ",
    ],
)
def test_refused(root_fd: int, spec: str) -> None:
    with pytest.raises(InvalidArgument):
        lookup(root_fd, spec)


def test_further_groups(root_fd: int) -> None:
    assert lookup(root_fd, "99", ["wheel", "77"]).groups == (0, 10, 77)
    assert lookup(root_fd, "99:5", ["55"]).groups == (5, 55)
    for unfit in ("2147483648", "-1", "9" * 5000, "who"):
        with pytest.raises(InvalidArgument):
            lookup(root_fd, "99", [unfit])


def test_hostile_files(root: Path, root_fd: int) -> None:
    passwd = root / "etc/passwd"
    passwd.unlink()
    assert lookup(root_fd, "") == User(0, 0, (0,), "/")
    os.mkfifo(passwd)
    assert lookup(root_fd, "5").uid == 5
    passwd.unlink()
    passwd.symlink_to("/etc/passwd")
    with pytest.raises(InvalidArgument):
        lookup(root_fd, "daemon")
    passwd.unlink()
    passwd.symlink_to("../../../../../../../../etc/passwd")
    with pytest.raises(InvalidArgument):
        lookup(root_fd, "daemon")
    passwd.unlink()
    passwd.mkdir()
    assert lookup(root_fd, "5").uid == 5
    passwd.rmdir()
    passwd.write_bytes(b"x" * (5 << 20))
    with pytest.raises(InvalidArgument, match="larger than"):
        lookup(root_fd, "")
    passwd.write_bytes(b"\xff\xfe:x:5:6::/\xff:\n")
    assert lookup(root_fd, "5").gid == 6
    passwd.write_text("evil:x:4294967296:0::/:\nevil2:x:99999999999999999999:0::/:\n")
    with pytest.raises(InvalidArgument):
        lookup(root_fd, "evil")
