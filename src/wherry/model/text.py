"""Foreign text that is shown to people: labels, file names, errors of registries, commands.

A line break could forge a line, an escape sequence can change a terminal's title, clipboard or screen, and
direction marks can make a text look like another one (CVE-2021-42574). Nothing is removed: such characters
are shown as escapes with their number.
"""

from __future__ import annotations


def safe(text: str) -> str:
    """``text`` fit for a terminal: line breaks and tabs stay, other control characters are escapes
    (``\\x1b``)."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _is_control(c) else _escape(c) for c in text)


def one_line(text: str) -> str:
    """``text`` as a part of one line, fit for a terminal: nothing in it ends the line, or a cell of it."""
    if text.isprintable():
        return text
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def indented(text: str) -> str:
    """``text`` with any number of lines, fit for a terminal: lines after the first are indented, so that they
    cannot be mistaken for other messages."""
    return safe(text).replace("\n", "\n  ")


def _is_control(char: str) -> bool:
    """Control characters, line and paragraph separators, marks of direction, halves of surrogate pairs."""
    code = ord(char)
    return (
        code < 0x20
        or 0x7F <= code < 0xA0
        or code in (0x061C, 0x200E, 0x200F)
        or 0x2028 <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
