"""Text that others wrote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wherry.model.text import indented, one_line, safe


@given(st.text())
def test_nothing_of_it_does_anything(text: str) -> None:
    for shown in (safe(text).replace("\n", "").replace("\t", ""), one_line(text)):
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert len(one_line(text).splitlines()) <= 1
    assert all(line.startswith("  ") for line in indented(text).split("\n")[1:])
    assert safe(safe(text)) == safe(text)


def test_what_is_shown_instead() -> None:
    assert one_line("a\tb\nc\x1b\x9b\u202e\u2028\udcff") == r"a\tb\nc\x1b\x9b\u202e\u2028\udcff"
    assert safe("a\tb\n\r") == "a\tb\n\\x0d"
    assert one_line("schön 日本 👍\u200d") == "schön 日本 👍\u200d"
