from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import one

from wherry.compose import output

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("1", '"1"'),
        ("true", '"true"'),
        ("yes", '"yes"'),
        ("null", '"null"'),
        ("1e3", '"1e3"'),
        ("12:30", '"12:30"'),
        ("*.js", "'*.js'"),
        ("a: b", "'a: b'"),
        ("a #b", "'a #b'"),
        ("it's", "it's"),
        ("- x", "'- x'"),
        (" x", "' x'"),
        ("8080:80", '"8080:80"'),
        ("a\tb", '"a\\tb"'),
        ("\ufffe\x7f", '"\\ufffe\\u007f"'),
    ],
)
def test_strings_are_quoted_where_they_must_be(text: str, want: str) -> None:
    assert output.quoted(text) == want


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        TEXTS | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=20,
    )
)
def test_what_is_written_reads_the_same(value: object) -> None:
    assert yaml.safe_load(output.dump({"k": value})) == {"k": value}


@given(st.lists(st.sampled_from(["a", "", "  b", "c d", "#", "x: y"]), min_size=2, max_size=5))
def test_texts_of_several_lines(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert yaml.safe_load(output.dump({"k": text})) == {"k": text}


def test_a_project(tmp_path: Path) -> None:
    project = one(
        tmp_path,
        "name: p\nx-top: {b: 1}\nservices:\n  a:\n    image: x\n    x-own: {z: 1}\n    ports: "
        "['80:80']\n    command: [a, '1']\n",
    )
    assert output.as_yaml(project) == (
        'name: p\nservices:\n  a:\n    command:\n      - a\n      - "1"\n    image: x\n    networks:\n'
        "      default: null\n    ports:\n      - mode: ingress\n        target: 80\n"
        '        published: "80"\n        protocol: tcp\n    x-own:\n      z: 1\n'
        "networks:\n  default:\n    name: p_default\nx-top:\n  b: 1\n"
    )
