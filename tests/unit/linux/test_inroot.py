"""Paths inside a root that lead to what is not there, against realpath(3) and against the kernel."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wherry.linux import inroot, syscalls


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    top = tmp_path / "root"
    top.mkdir()
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    yield top, fd
    os.close(fd)


def test_links_that_lead_nowhere(root: tuple[Path, int], tmp_path: Path) -> None:
    top, fd = root
    (top / "data").symlink_to("/var/lib/data")
    (top / "up").symlink_to("../../outside")
    (top / "chain").symlink_to("data/more")
    (top / "file").write_text("x")
    assert inroot.resolve(fd, "/data/x") == ["var", "lib", "data", "x"]
    assert inroot.resolve(fd, "/up") == ["outside"]
    assert inroot.resolve(fd, "chain") == ["var", "lib", "data", "more"]
    assert inroot.resolve(fd, "/a/../../b/./c//") == ["b", "c"]
    assert inroot.make_directory(fd, "/chain/deep") == ["var", "lib", "data", "more", "deep"]
    assert (top / "var/lib/data/more/deep").is_dir()
    inroot.make_directory(fd, "/up")
    assert (top / "outside").is_dir() and not (tmp_path / "outside").exists()
    with pytest.raises(NotADirectoryError):
        inroot.make_directory(fd, "/file/x")


def test_loops(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("/a")
    with pytest.raises(OSError, match="Too many levels"):
        inroot.resolve(fd, "/a/x")


def test_modes_whatever_the_umask(root: tuple[Path, int]) -> None:
    top, fd = root
    before = os.umask(0o077)
    try:
        inroot.make_directory(fd, "/one/two")
        inroot.make_file(fd, "/three/file")
        inroot.make_file(fd, "/three/file")
    finally:
        os.umask(before)
    for path in ("one", "one/two", "three"):
        assert stat.S_IMODE((top / path).stat().st_mode) == 0o755
    assert (top / "three/file").read_bytes() == b""


names = st.sampled_from(["a", "b", "c", "..", "."])
paths = st.builds(lambda slash, parts: slash + "/".join(parts), st.sampled_from(["", "/"]), st.lists(names, min_size=1, max_size=4))  # fmt: skip  # noqa: E501


@given(links=st.dictionaries(st.sampled_from(["a", "b", "c"]), paths, max_size=3), path=paths)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_made_is_where_the_kernel_finds_it(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], path: str
) -> None:
    top = tmp_path_factory.mktemp("root")
    for name, target in links.items():
        (top / name).symlink_to(target)
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        parts = inroot.make_directory(fd, path)
        found = syscalls.openat2(fd, path.lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            assert os.readlink(f"/proc/self/fd/{found}") == str(top.joinpath(*parts))
        finally:
            os.close(found)
    except OSError:
        pass  # a loop
    finally:
        os.close(fd)
