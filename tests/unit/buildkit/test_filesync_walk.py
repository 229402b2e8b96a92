"""The walk of a client's directory, and what is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.buildkit.filesync import (
    GO_DIRECTORY,
    GO_SETUID,
    GO_STICKY,
    GO_SYMLINK,
    Walk,
    WantedFiles,
    permissions,
)
from wherry.buildkit.proto import fsutil_pb2
from wherry.errors import InvalidArgument
from wherry.storage.contexts import ENTRIES_MAX

Stat = fsutil_pb2.Stat
NAMES = st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)


def test_modes() -> None:
    assert permissions(GO_DIRECTORY | GO_STICKY | 0o777) == 0o1777
    assert permissions(GO_SETUID | 0o755) == 0o4755


def test_names_that_are_not_ascii_are_escaped() -> None:
    plain = WantedFiles("context", exclude=["*.o"], follow=["a b"])
    assert plain.metadata().all("exclude-patterns") == ["*.o"]
    escaped = WantedFiles("context", follow=["ü", "plain"]).metadata()
    assert escaped.all("followpaths") == ["%C3%BC", "plain"]
    assert escaped.all("followpaths-encoded") == ["1"]


@given(st.lists(st.tuples(NAMES, st.sampled_from([0o644, GO_DIRECTORY | 0o755, GO_SYMLINK | 0o777]))))
def test_whatever_comes_is_clean_and_in_order(entries: list[tuple[str, int]]) -> None:
    walk = Walk("x")
    for path, mode in entries:
        try:
            walk.add(Stat(path=path, mode=mode))
        except InvalidArgument:
            continue
    parts = [path.split(b"/") for path in walk.paths]
    assert parts == sorted(parts) and len({tuple(one) for one in parts}) == len(parts)
    for one in parts:
        assert not {b"", b".", b".."} & set(one)
        parent = b"/".join(one[:-1])
        if parent in walk.position:
            assert walk.stats[walk.position[parent]].mode & GO_DIRECTORY


def test_hard_links_lead_to_what_was_sent() -> None:
    walk = Walk("x")
    for stat in (Stat(path="a"), Stat(path="b", linkname="a"), Stat(path="c", linkname="b")):
        walk.add(stat)
    assert walk.link_of(0) is None and walk.link_of(1) == 0
    with pytest.raises(InvalidArgument, match="was not sent"):
        walk.link_of(2)


def test_a_walk_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENTRIES_MAX == 1_000_000
    monkeypatch.setattr("wherry.buildkit.filesync.ENTRIES_MAX", 3)
    walk = Walk("x")
    for path in "abc":
        walk.add(Stat(path=path))
    with pytest.raises(InvalidArgument, match="more than 3 files"):
        walk.add(Stat(path="d"))
