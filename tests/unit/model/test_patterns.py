"""Expressions and globs from outside: Go's syntax, linear time, bounds, and nothing loaded for plain text."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from wherry.errors import InvalidArgument
from wherry.logs import tags, values
from wherry.model import globs
from wherry.model.patterns import LENGTH_MAX, Anywhere, compiled


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("web", "my-web-1", True),
        ("^web", "my-web-1", False),
        ("^/?web", "/web", True),
        ("(?i)WEB", "web", True),
        ("a.c", "abc", True),
        ("a\\.c", "abc", False),
        ("[[:digit:]]+$", "web12", True),
        ("\\pL+", "é", True),
        ("^.$", "\udcff", True),
        ("x|y", "y", True),
    ],
)
def test_expressions_of_go(pattern: str, text: str, found: bool) -> None:
    assert compiled(pattern).search(text) is found


@pytest.mark.parametrize(
    "pattern", ["(a", "a{1001}", "(?=a)", "\\Z", "((a{1000}){100})", "a" * (LENGTH_MAX + 1)]
)
def test_what_is_no_expression(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="error parsing regexp"):
        compiled(pattern)


def test_names_of_a_filter() -> None:
    assert Anywhere(())("anything")
    named = Anywhere(("web", "^db[0-9]$", "^cache"))
    assert [named(n) for n in ("my-web", "db1", "db12", "a-cache", "cache-a")] == [
        True,
        True,
        False,
        False,
        True,
    ]
    with pytest.raises(InvalidArgument, match="error parsing regexp"):
        Anywhere(("a)|(b", "c)|(d"))
    with pytest.raises(InvalidArgument, match="longer than"):
        Anywhere(["x" * 100] * 100)


HOSTILE = ["(a+)+$", "(a|a)*$", "(a*)*b", "(.*a){20}x", "^(a?){50}a{50}$"]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_hostile_expressions_take_no_time(pattern: str) -> None:
    began = time.process_time()
    Anywhere((pattern,))("a" * 5000 + "!")
    matcher = values.pattern({"env-regex": pattern}, "env-regex")
    assert matcher is not None
    matcher.search("a" * 5000 + "!")
    assert time.process_time() - began < 1


def test_hostile_globs_of_parameters_take_no_time() -> None:
    began = time.process_time()
    assert globs.without_prefix("*a" * 200 + "*b", "a" * 10000, longest=True) == "a" * 10000
    assert globs.without_suffix("*a" * 200 + "*b*", "a" * 10000, longest=False) == "a" * 10000
    assert globs.replaced("*a" * 100 + "*b", "a" * 10000, "", every=True) == "a" * 10000
    assert time.process_time() - began < 4


def test_a_tag_with_much_space_takes_no_time() -> None:
    began = time.process_time()
    with pytest.raises(InvalidArgument, match="invalid tag template"):
        tags.check("{{" + " " * 20000)
    assert time.process_time() - began < 1
    assert (
        tags.render("{{- .Name -}}/{{ .ID }}", tags.ContainerFacts(id="a" * 64, name="web"))
        == "web/aaaaaaaaaaaa"
    )


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("alpine*", "alpine", True),
        ("*/app", "library/app", True),
        ("*", "library/app", False),
        ("[a-z]pp", "app", True),
        ("a[+-0]b", "a/b", False),
        ("a[+-0]b", "a.b", True),
        ("a[/]b", "a/b", False),
        ("a[^x]b", "a/b", False),
        ("a[]]b", "a]b", True),
        ("a(b", "a(b", True),
        ("\\*", "*", True),
    ],
)
def test_globs_of_paths(pattern: str, text: str, found: bool) -> None:
    assert globs.path_pattern(pattern, double_star=False).fullmatch(text) is found


@pytest.mark.parametrize(
    ("pattern", "longest", "rest"),
    [
        ("*.", False, "b.c"),
        ("*.", True, "c"),
        ("a", True, ".b.c"),
        ("?.", True, "b.c"),
        ("x*", True, "a.b.c"),
    ],
)
def test_what_is_cut_from_the_beginning(pattern: str, longest: bool, rest: str) -> None:
    assert globs.without_prefix(pattern, "a.b.c", longest=longest) == rest


def test_plain_text_loads_nothing() -> None:
    script = """
import sys
from wherry.model import globs, ignore, patterns
assert patterns.compiled("web-1").search("my-web-1")
assert patterns.Anywhere(["web"])("web")
assert ignore.Patterns(["node_modules", "!a/b"]).excluded("node_modules/x")
assert globs.path_pattern("alpine").fullmatch("alpine")
assert "re2" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
