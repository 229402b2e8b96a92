"""Words and variables, case by case from the Dockerfile reference."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.dockerfile.words import expand, split
from wherry.errors import InvalidArgument

ENV = {"name": "A b", "empty": "", "version": "1.2.3", "path": "x/y/z.tar.gz"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$name", "A b"),
        ("${name}x", "A bx"),
        ("$none", ""),
        ("'$name'", "$name"),
        ('"$name"', "A b"),
        ("\\$name", "$name"),
        ("\\${name}", "${name}"),
        ("a\\ b", "a b"),
        ("${none:-word}", "word"),
        ("${empty:-word}", "word"),
        ("${empty-word}", ""),
        ("${none-word}", "word"),
        ("${name:+word}", "word"),
        ("${empty:+word}", ""),
        ("${empty+word}", "word"),
        ("${none+word}", ""),
        ("${none:-${version}}", "1.2.3"),
        ("${none:-'q r'}", "q r"),
        ("${name:?no}", "A b"),
        ("${empty?no}", ""),
        ("${version%.*}", "1.2"),
        ("${version%%.*}", "1"),
        ("${version#*.}", "2.3"),
        ("${version##*.}", "3"),
        ("${version#x}", "1.2.3"),
        ("${version/./-}", "1-2.3"),
        ("${version//./-}", "1-2-3"),
        ("${version/#/-}", "1.2.3"),
        ("${path##*/}", "z.tar.gz"),
        ("${path//\\//_}", "x_y_z.tar.gz"),
        ("${path%.tar.*}", "x/y/z"),
        ("${version/?/v}", "v.2.3"),
        ("$", "$"),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$1x", "x"),
        ("$$", ""),
        ("x\\", "x"),
        ('"a\\"b\\c\\$"', 'a"b\\c$'),
    ],
)
def test_values(text: str, value: str) -> None:
    assert expand(text, ENV).text == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$name c", ("A", "b", "c")),
        ('"$name" c', ("A b", "c")),
        ("a\\ b c", ("a b", "c")),
        ("$empty", ()),
        ("  a  b ", ("a", "b")),
        ("${none:-a b}", ("a", "b")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert expand(text, ENV).words == words


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${{name}", "bad substitution"),
        ("${name", "missing '}'"),
        ("${none:-x", "missing '}'"),
        ("${name/a", "missing '/'"),
        ("'x", "matching single-quote"),
        ('"x', "matching double-quote"),
        ("${none?}", "none: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${none:?set it}", "none: set it"),
        ("${name^}", "unsupported modifier (^)"),
        ("${name:=x}", "unsupported modifier (:=)"),
        ("${name:#x}", "unsupported modifier (:#)"),
        ("${name#\\n}", "invalid escape"),
        ("${a:-" * 100, "nested too deeply"),
    ],
)
def test_what_cannot_be(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        expand(text, ENV)
    assert reason in error.value.message


def test_another_escape_character() -> None:
    assert expand("`$name\\x", ENV, escape="`").text == "$name\\x"


def test_without_quotes() -> None:
    assert expand("'$version' \\$x", ENV, quotes=False).text == "'1.2.3' $x"


def test_which_names_were_asked_for() -> None:
    found = expand("$name ${none:-$other}", ENV)
    assert (found.used, found.unset) == ({"name"}, {"other"})


def test_values_that_name_each_other_do_not_grow_without_end() -> None:
    env = {"x": "lol"}
    with pytest.raises(InvalidArgument, match="grows beyond"):
        for _ in range(64):
            env["x"] = expand("$x$x", env).text


def test_hostile_patterns_take_no_time() -> None:
    env = {"x": "a" * 16000}
    began = time.process_time()
    for pattern in ("*a" * 50 + "b", "?*" * 50 + "b"):
        assert expand(f"${{x%{pattern}}}", env).text == env["x"]
        assert expand(f"${{x#{pattern}}}", env).text == env["x"]
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a="b c" d\\ e', ['a="b c"', "d\\ e"]),
        ("'f g' h", ["'f g'", "h"]),
        ("a=b\\", ["a=b"]),
        ("a='x\\' b", ["a='x\\'", "b"]),
        ('a="no end', ['a="no end']),
        ("", []),
    ],
)
def test_words_as_written(text: str, words: list[str]) -> None:
    assert split(text) == words


@given(st.text(alphabet='ab$ {}:-+?#%/\\"*', max_size=40))
def test_what_stands_in_single_quotes_is_itself(text: str) -> None:
    assert expand(f"'{text}'", {"a": "b", "b": ""}).text == text


@given(st.lists(st.sampled_from(["x", "$a", "${a}", "${none:-w}", "${b:+w}", "'$a'", '"$a"', "\\$a", "-"])))
def test_words_side_by_side_are_their_values_side_by_side(words: list[str]) -> None:
    values = {"x": "x", "$a": "1 2", "${a}": "1 2", "${none:-w}": "w", "${b:+w}": "", "'$a'": "$a"}
    values |= {'"$a"': "1 2", "\\$a": "$a", "-": "-"}
    assert expand(" ".join(words), {"a": "1 2", "b": ""}).text == " ".join(values[word] for word in words)


@given(st.text(alphabet="ab$ {}:-+?#%/\\'\"*", max_size=40))
def test_anything_is_a_value_or_a_named_error(text: str) -> None:
    try:
        expand(text, {"a": "b", "b": ""})
    except InvalidArgument as e:
        assert e.message.startswith("failed to process")
