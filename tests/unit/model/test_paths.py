"""Names from elsewhere as parts of paths."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.linux import cgroups
from wherry.model import paths

BASE = Path("/base/of/ours")


@pytest.mark.parametrize("name", ["a", "a..b", "..a", "...", "ü" * 127, "-rf", "a b", "x" * 255])
def test_names_of_files(name: str) -> None:
    assert paths.below(BASE, name) == BASE / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "/etc",
        "a/b",
        "../x",
        "a/../../x",
        "a\0b",
        "a\n",
        "\x7f",
        "ü" * 128,
        "x" * 256,
        "\udc80",
    ],
)
def test_what_is_none(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"invalid volume name .*: it is not a valid file name"):
        paths.below(BASE, name, what="volume name")


@given(st.lists(st.text("./\0\na", max_size=6), max_size=4))
def test_nothing_is_made_outside(names: list[str]) -> None:
    try:
        found = paths.below(BASE, *names)
    except InvalidArgument:
        return
    assert len(found.parts) == len(BASE.parts) + len(names)
    assert ".." not in found.parts


@pytest.mark.parametrize(
    "asked, parent",
    [
        ("", "/"),
        ("/", "/"),
        ("a", "/a"),
        ("/a//b/./", "/a/b"),
        ("a-b.slice", "/a-b.slice"),
        ("a..b", "/a..b"),
    ],
)
def test_cgroup_parents(asked: str, parent: str) -> None:
    assert cgroups.check_parent(asked) == parent
    assert cgroups.child(asked, "f00") == f"{parent.rstrip('/')}/f00"


@pytest.mark.parametrize(
    "asked", ["..", "../../x", "/a/../../x", "a/..", "a\nb", "a\0", "a/" * 1100, "x" * 256]
)
def test_cgroup_parents_that_leave(asked: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup parent"):
        cgroups.check_parent(asked)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "/"]), max_size=8))
def test_a_cgroup_of_an_older_record_stays_within(parts: list[str]) -> None:
    found = PurePosixPath(cgroups.child("/".join(parts), "f00"))
    assert found.is_absolute() and ".." not in found.parts and found.name == "f00"
    assert not str(found).startswith("//")
