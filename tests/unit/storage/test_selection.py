"""What a COPY means: selections and checksums of an index."""

from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.storage.contexts import ContextEntry, IndexTree, parse_manifest
from wherry.storage.selection import NotThere, Wanted, checksum, select


def tree(**files: str) -> IndexTree:
    """Files by path (``__`` is a slash, ``_`` a dot); a text that begins with ``->`` is a link."""
    entries = []
    for name, text in files.items():
        path = name.replace("__", "/").replace("_", ".").encode()
        if text.startswith("->"):
            entries.append(ContextEntry(path, "l", 0o777, 0, 0, text[2:].encode()))
        else:
            entries.append(ContextEntry(path, "f", 0o644, len(text), 0, b"", text.encode()))
    return IndexTree(entries)


TREE = tree(a_txt="1", b_md="2", d__c_txt="3", d__e__f_txt="4", l="->d/e", out="->/../../d", loop="->loop")


def paths(*sources: str, **wanted: object) -> list[str]:
    found = select(TREE, Wanted(list(sources), into=True, **wanted))  # type: ignore[arg-type]
    return [(item.path or item.name).decode() for item in found if item.path or item.name]


def test_what_sources_stand_for() -> None:
    assert paths("a.txt") == ["a.txt"] and paths("d") == ["c.txt", "e", "e/f.txt"]
    assert paths("*.txt", "d/*") == ["a.txt", "c.txt", "f.txt"]
    assert paths("l") == ["f.txt"] and paths("out/c.txt") == ["c.txt"], "links stay within the tree"
    assert paths("../../a.txt") == ["a.txt"] and paths("none*") == []
    assert paths("d", exclude=["e"]) == ["c.txt"]
    assert paths("d", exclude=["**", "!e/f.txt"]) == ["e/f.txt"]
    assert paths("d/e/f.txt", parents=True) == ["d", "d/e", "d/e/f.txt"]
    assert paths("d/./e/*.txt", parents=True) == ["e", "e/f.txt"]
    assert paths("**/f.txt", parents=True) == ["d", "d/e", "d/e/f.txt"]
    first = next(iter(select(TREE, Wanted(["d"], into=True))))
    assert (first.path, first.node.kind) == (b"", "d"), "what a destination that is made becomes like"
    assert "a.txt" not in paths(".", hidden=["a.txt"])
    # With parents, what is excluded is told from where the copied paths begin.
    assert paths("d", parents=True, exclude=["d/e"]) == ["d", "d/c.txt"]
    assert paths("d", parents=True, exclude=["e", "c.txt"]) == ["d", "d/c.txt", "d/e", "d/e/f.txt"]
    assert paths("d/./e", parents=True, exclude=["e/f.txt"]) == ["e"]
    assert paths("./d", parents=True, exclude=["d", "!d/c.txt"]) == ["d/c.txt"]
    for missing in ("nothing", "loop", "a.txt/x"):
        with pytest.raises(NotThere):
            paths(missing)


def test_checksums_are_of_exactly_what_is_read() -> None:
    def total(files: IndexTree, source: str) -> str:
        return checksum(files, Wanted([source], into=True), owners=False)

    other = tree(a_txt="1", b_md="changed", d__c_txt="3")
    assert total(TREE, "a.txt") == total(other, "a.txt") != total(TREE, "b.md")
    assert total(TREE, "b.md") != total(other, "b.md") and total(TREE, "d") != total(other, "d")
    assert total(tree(x="1"), ".") != total(tree(y="1"), ".")


def test_manifests() -> None:
    _, entry = parse_manifest(b"a\0d\x00755\x000\x000\0\0\0a/b\0f\x00644\x003\x007\0\0stamp\0")
    assert (entry.path, entry.mode, entry.size, entry.stamp) == (b"a/b", 0o644, 3, b"stamp")
    tail = b"\x003\x007\0\0s\0"
    for bad in (b"x", b"../a\0f\x00644" + tail, b"a\0f\0zz" + tail, b"/a\0f\x00644" + tail):
        with pytest.raises(InvalidArgument):
            parse_manifest(bad)
