"""``.dockerignore`` by the rules of its documentation, and the wildcards of COPY."""

from __future__ import annotations

import time

import pytest

from wherry.errors import InvalidArgument
from wherry.model.ignore import Patterns, read, wildcard


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        ("*/temp*", "a/temporary.txt", True),
        ("*/temp*", "a/temp/x", True),
        ("*/temp*", "a/b/temporary.txt", False),
        ("*/*/temp*", "a/b/temporary.txt", True),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("**/*.go", "x.go", True),
        ("**/*.go", "a/b/x.go", True),
        ("*.go", "a/x.go", False),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("a", "a/b/c", True),
        ("a\n!a/b", "a/b/c", False),
        ("a\n!a/b", "a/c", True),
        ("/a/", "a/x", True),
        ("./a/../b", "b", True),
        ("a/**", "a/b", True),
        ("a/**", "a", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
        ("**", "anything/at/all", True),
        ("**\n!keep", "keep", False),
        ("**name", "some-name", True),
        ("**/name", "some-name", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a.b", "axb", False),
        ("# no\n\n  sp ace  ", "sp ace", True),
        ("# no", "# no", False),
    ],
)
def test_excluded(patterns: str, path: str, excluded: bool) -> None:
    assert Patterns(read(patterns)).excluded(path) is excluded


@pytest.mark.parametrize(
    ("patterns", "directory", "skippable"),
    [
        ("node_modules", "node_modules", True),
        ("a\n!a/b", "a", False),
        ("a\n!a/b", "a/c", True),
        ("a\n!b", "a", True),
        ("a\n!**/keep", "a", False),
        ("a", "b", False),
        ("**", "a", True),
    ],
)
def test_directories_a_walker_leaves_out(patterns: str, directory: str, skippable: bool) -> None:
    assert Patterns(read(patterns)).skippable(directory) is skippable


def test_what_is_no_pattern() -> None:
    with pytest.raises(InvalidArgument, match="illegal exclusion pattern"):
        Patterns(["!"])
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        Patterns(["[a"])
    with pytest.raises(InvalidArgument, match="too many"):
        Patterns(["x"] * 10001)


def test_hostile_patterns_take_no_time() -> None:
    patterns = Patterns(["*a" * 40 + "b", "**/a*/" * 40 + "b", "[a-z]*" * 40 + "/b"])
    began = time.process_time()
    for path in ("a" * 4000, "a/" * 2000 + "c"):
        assert not patterns.excluded(path)
    assert time.process_time() - began < 2


def test_many_patterns_are_one_question() -> None:
    patterns = Patterns([f"**/*.{n}" for n in range(2000)] + ["!**/keep.1999"])
    began = time.process_time()
    for number in range(2000):
        assert patterns.excluded(f"a/b/c/{number}.{number}")
        assert not patterns.excluded(f"a/b/c/{number}")
    assert not patterns.excluded("a/keep.1999")
    assert time.process_time() - began < 3


def test_wildcards() -> None:
    assert wildcard("plain/path") is None
    found = wildcard("dir/*.t?t")
    assert found is not None
    assert [bool(found.fullmatch(p)) for p in ("dir/a.txt", "dir/a.tt", "x/dir/a.txt")] == [
        True,
        False,
        False,
    ]
    here = wildcard("**/*.txt")
    assert here is not None and here.fullmatch("a/c.txt") and not here.fullmatch("a/b/c.txt")
