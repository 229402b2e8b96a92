from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.compose.interpolation import MalformedTemplate, Required, interpolate, substitute, variables
from wherry.compose.places import FileError
from wherry.compose.yamlfile import documents

ENV = {"SET": "value", "EMPTY": "", "OTHER": "o"}


def replaced(text: str) -> str:
    return substitute(text, ENV.get, lambda _name: None)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("$SET", "value"),
        ("${SET}", "value"),
        ("a${SET}b$OTHER-c", "avalueboc-c".replace("boc", "bo")),
        ("$$SET", "$SET"),
        ("$$$SET", "$value"),
        ("${SET-d}", "value"),
        ("${SET:-d}", "value"),
        ("${EMPTY-d}", ""),
        ("${EMPTY:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${NONE:-d}", "d"),
        ("${NONE-}", ""),
        ("${SET+r}", "r"),
        ("${SET:+r}", "r"),
        ("${EMPTY+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${NONE+r}", ""),
        ("${NONE:+r}", ""),
        ("${SET?e}", "value"),
        ("${SET:?e}", "value"),
        ("${EMPTY?e}", ""),
        ("${NONE:-${SET}}", "value"),
        ("${NONE:-a${NONE:-b}c}", "abc"),
        ("${NONE:-$SET}", "value"),
        ("${NONE:-http://x:80/?a=b}", "http://x:80/?a=b"),
        ("$NONE", ""),
        ("${NONE}", ""),
    ],
)
def test_forms(text: str, want: str) -> None:
    assert replaced(text) == want


@pytest.mark.parametrize("text", ["${", "${}", "${1}", "$1", "$ ", "$", "${A", "${A!b}", "${A:b}", "a$-"])
def test_malformed(text: str) -> None:
    with pytest.raises(MalformedTemplate):
        replaced(text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("${NONE?}", "required variable NONE is missing a value"),
        ("${NONE?say $SET}", "required variable NONE is missing a value: say value"),
        ("${EMPTY:?no}", "required variable EMPTY is missing a value: no"),
    ],
)
def test_required(text: str, want: str) -> None:
    with pytest.raises(Required) as caught:
        replaced(text)
    assert str(caught.value) == want


@given(st.text())
def test_doubled_dollars_come_out_as_they_went_in(text: str) -> None:
    assert replaced(text.replace("$", "$$")) == text


@given(st.text(alphabet="${}:-?+aS ET_1", max_size=30))
def test_any_text_is_replaced_or_refused(text: str) -> None:
    try:
        found = replaced(text)
    except (MalformedTemplate, Required):
        return
    assert isinstance(found, str)


@given(st.text(alphabet=st.characters(exclude_characters="${}"), max_size=20))
def test_a_default_is_what_it_says(default: str) -> None:
    assert replaced(f"${{NONE:-{default}}}") == default


def test_what_nobody_set_is_told() -> None:
    told: list[str] = []
    substitute("$A ${B} ${C:-x} $SET", ENV.get, told.append)
    assert told == ["A", "B"]


def test_the_place_is_named() -> None:
    tree = documents(b"services:\n  a:\n    image: x${\n", "f.yaml")[0]
    with pytest.raises(FileError) as caught:
        interpolate(tree, tree.at, "", ENV.get, lambda _name: None)
    assert caught.value.message.startswith(
        "f.yaml:3:12: services.a.image has an invalid interpolation format"
    )


def test_keys_are_left_alone() -> None:
    tree = documents(b"$SET: $SET\n", "f")[0]
    assert interpolate(tree, tree.at, "", ENV.get, lambda _name: None) == {"$SET": "value"}


def test_variables_are_listed() -> None:
    found: dict[str, tuple[bool, str, str]] = {}
    variables(documents(b"a: ['${A:-x}', '${B?y}', $C, '${D+z}', '${E:-${F}}', $$G]\n", "f")[0], found)
    assert found == {
        "A": (False, "x", ""),
        "B": (True, "", ""),
        "C": (False, "", ""),
        "D": (False, "", "z"),
        "E": (False, "${F}", ""),
        "F": (False, "", ""),
    }
