from __future__ import annotations

import pytest

from wherry.compose.places import RESET, FileError
from wherry.compose.yamlfile import VALUES_MAX, documents, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("12", 12),
        ("-3", -3),
        ("1_000", 1000),
        ("0777", 511),
        ("0o17", 15),
        ("0x1f", 31),
        ("0b11", 3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("2001-01-01", "2001-01-01"),
        ("+", "+"),
        ("-", "-"),
        ("0xzz", "0xzz"),
        (".inf", float("inf")),
        ("08", 8.0),
    ],
)
def test_what_a_word_without_quotes_is(text: str, value: object) -> None:
    assert plain(text) == value and type(plain(text)) is type(value), f"{text!r}: got {plain(text)!r}"


def test_quotes_make_a_string_of_everything() -> None:
    found = documents(b"a: '12'\nb: \"true\"\nc: !!str 12\nd: |\n  12\n", "f")[0]
    assert dict(found) == {"a": "12", "b": "true", "c": "12", "d": "12\n"}


def test_every_value_knows_its_place() -> None:
    found = documents(b"a:\n  b: 1\n  c:\n    - x\n    - y\n", "f.yaml")[0]
    assert str(found["a"].place("b")) == "f.yaml:2:6"
    assert str(found["a"]["c"].place(1)) == "f.yaml:5:7"


def test_anchors_and_merge_keys() -> None:
    text = b"x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 9\n"
    assert documents(text, "f")[0]["z"] == {"a": 9, "b": 2, "c": 4}


def test_tags_of_merging() -> None:
    found = documents(b"a: !reset null\nb: !override [1]\nc: [2]\n", "f")[0]
    assert found["a"] is RESET
    assert found["b"].override and not found["c"].override


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: 1\na: 2\n", '2:1: mapping key "a" already defined at line 1'),
        (b"a: [1\n", "yaml:"),
        (b"- 1\n", "top-level object must be a mapping"),
        (b"? [a]\n: 1\n", "a key must be a plain word"),
        (b"a: &a\n  b: *a\n", "must not contain itself"),
        (b"a: *b\n", "undefined alias"),
        (b"\xff\xfe\x00", "yaml"),
        (b"a: " + b"[" * 150 + b"]" * 150, "nested too deeply"),
    ],
)
def test_what_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(FileError) as caught:
        documents(text, "f.yaml")
    assert words in caught.value.message, caught.value.message


def test_a_billion_laughs_are_not_laughed() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(FileError) as caught:
        documents("\n".join(lines).encode(), "f")
    assert str(VALUES_MAX) in caught.value.message
