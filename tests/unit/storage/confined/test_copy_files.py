"""COPY by the real confined child: what arrives is exact, also in directories that the copy itself makes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from wherry.errors import Unavailable
from wherry.linux import syscalls
from wherry.model.mount import Mount
from wherry.storage.confined import build_files
from wherry.storage.confined.build_files import CopyJob, Part
from wherry.storage.confined.children import Ending
from wherry.storage.selection import Wanted

pytestmark = pytest.mark.kernel


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def copy(
    source: Path,
    target: Path,
    to: str,
    sources: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    chown: str = "",
) -> None:
    wanted = Wanted(sources, into=True, exclude=exclude)
    part = Part(Mount("bind", str(source), ("rbind",)), wanted)
    job = CopyJob(path=to, into=True, parts=[part], chown=chown)
    build_files.copy(Mount("bind", str(target), ("rbind",)), job, what="COPY", ending=Ending())


def facts(top: Path) -> dict[str, tuple[int, int, int, str]]:
    """Mode, owner, group and text by path."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        text = path.read_text() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(top))] = (
            stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, text,
        )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("chown", "owner"), [("", (0, 0)), ("12:34", (12, 34)), ("0:9", (0, 9)), ("9:0", (9, 0))]
)
def test_modes_and_owners_below_new_directories(
    source: Path, target: Path, chown: str, owner: tuple[int, int]
) -> None:
    modes = [0o644, 0o600, 0o000, 0o777, 0o4755, 0o2755, 0o1644, 0o6711]
    for mode in modes:
        put(source / "a/new/below" / f"{mode:o}", "x", mode)
    (source / "a/new").chmod(0o2750)
    for path in (source / "a").rglob("*"):
        os.chown(path, 77, 88)
        if path.is_file():
            path.chmod(int(path.name, 8))
    (source / "a/new").chmod(0o2750)
    copy(source, target, "/to/", ["/a"], chown=chown)
    found = facts(target / "to")
    assert found["new"] == (0o2750, *owner, "")
    assert {name: fact for name, fact in found.items() if fact[3]} == {
        f"new/below/{mode:o}": (mode, *owner, "x") for mode in modes
    }


def test_what_new_files_would_inherit_is_undone(source: Path, target: Path) -> None:
    """A default ACL is passed on to directories and masks the modes of files; so is a group by setgid."""
    put(source / "a/new/file", "x", 0o664)
    (target / "to").mkdir()
    os.chown(target / "to", 0, 55)
    (target / "to").chmod(0o2777)
    # user::rwx group::--- mask::--- other::---, in the kernel's form (linux/posix_acl_xattr.h)
    entries = [(0x01, 7), (0x04, 0), (0x20, 0)]
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + b"\xff\xff\xff\xff"
        for tag, rights in entries
    )
    try:
        os.setxattr(target / "to", "system.posix_acl_default", acl)
    except OSError as e:
        pytest.skip(f"this file system has no ACLs: {e}")
    copy(source, target, "/to/", ["/a"])
    assert facts(target / "to")["new/file"] == (0o664, 0, 0, "x")


def test_what_a_later_source_brings_replaces_the_earlier(source: Path, target: Path) -> None:
    for name in ("a", "b"):
        put(source / name / "shared/file", name)
        put(source / name / "top", name)
        put(source / name / f"only-{name}/file", name)
    (source / "b/shared/link").symlink_to("file")
    put(source / "a/shared/link", "a")
    copy(source, target, "/to/", ["/a", "/b"])
    texts = {name: fact[3] for name, fact in facts(target / "to").items() if fact[3]}
    assert texts == {
        "shared/file": "b", "top": "b", "only-a/file": "a", "only-b/file": "b",
    }  # fmt: skip
    assert (target / "to/shared/link").readlink() == Path("file")


def test_what_was_there_is_replaced(source: Path, target: Path) -> None:
    put(source / "a/to/file", "new", 0o640)
    put(source / "a/file", "new", 0o640)
    put(target / "to/to/file", "old", 0o777)
    put(target / "to/file", "old", 0o777)
    os.link(target / "to/file", target / "other")
    copy(source, target, "/to/", ["/a"])
    assert facts(target)["to/to/file"] == (0o640, 0, 0, "new")
    assert facts(target)["to/file"] == (0o640, 0, 0, "new")
    assert (target / "other").read_text() == "old"


def test_a_new_destination_is_not_taken_for_a_directory_of_its_name_within(
    source: Path, target: Path
) -> None:
    put(source / "a/to/kept", "x", 0o4755)
    (target / "to/to").mkdir(parents=True)
    os.chown(target / "to/to", 0, 55)
    (target / "to/to").chmod(0o2777)
    copy(source, target, "/to/", ["/a"], exclude=["to", "!to/kept"])
    assert facts(target / "to")["to/kept"] == (0o4755, 0, 0, "x")


def test_hard_links_stay_together(source: Path, target: Path) -> None:
    put(source / "a/one/file", "x")
    (source / "a/two").mkdir()
    os.link(source / "a/one/file", source / "a/two/file")
    copy(source, target, "/to/", ["/a"])
    assert (target / "to/one/file").stat().st_ino == (target / "to/two/file").stat().st_ino


def test_large_and_sparse_files(source: Path, target: Path) -> None:
    data = os.urandom(200_000)
    (source / "a").mkdir()
    (source / "a/large").write_bytes(data)
    with (source / "a/sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    copy(source, target, "/to/", ["/a"])
    assert (target / "to/large").read_bytes() == data
    subprocess.run(["cmp", source / "a/sparse", target / "to/sparse"], check=True)
    assert (target / "to/sparse").stat().st_blocks * 512 < 1 << 20


MANY = 2500
"""More than one helper's part, so that forks of the child take some."""


def put_many(top: Path) -> None:
    for number in range(MANY):
        put(top / f"d{number // 100}" / f"f{number}", f"text {number}", 0o600 + number % 8)


def test_many_files_are_copied_by_helpers(source: Path, target: Path) -> None:
    put_many(source / "a")
    for number in range(100):  # of several directories, so that no helper has all names of one
        os.link(source / f"a/d0/f{number}", source / f"a/d{20 + number % 5}/h{number}")
    put(source / "b/d3/f300", "of the second source", 0o777)
    copy(source, target, "/to/", ["/a", "/b"])
    found = facts(target / "to")
    for number in range(MANY):
        expected = (0o600 + number % 8, 0, 0, f"text {number}")
        if number == 300:
            expected = (0o777, 0, 0, "of the second source")
        assert found[f"d{number // 100}/f{number}"] == expected
    for number in range(100):
        first, second = target / f"to/d0/f{number}", target / f"to/d{20 + number % 5}/h{number}"
        assert first.stat().st_ino == second.stat().st_ino
    for directory in range(25):
        status = (source / f"a/d{directory}").stat()
        if directory != 3:
            assert (target / f"to/d{directory}").stat().st_mtime_ns == status.st_mtime_ns


def test_what_stops_a_helper_stops_the_copy(source: Path, tmp_path: Path) -> None:
    put_many(source / "a")
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("none", str(small), "tmpfs", 0, "size=4m")
    try:
        with pytest.raises(Unavailable, match="no space left on device"):
            copy(source, small, "/to/", ["/a"])
    finally:
        syscalls.umount(str(small))
