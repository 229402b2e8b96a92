"""The messages of Go's JSON decoder about malformed JSON: clients and scripts match them.

It is only called after another decoder has refused the text, so the code favours clarity over speed.
Positions and characters are bytes, as Go's are (encoding/json, "SyntaxError").
"""

from __future__ import annotations

_SPACE = " \t\r\n"
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
_WORDS = {"t": "true", "f": "false", "n": "null"}
_DEPTH_MAX = 10_000
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


class NotJson(Exception):
    """Malformed JSON; the text is Go's."""


class EndOfInput(NotJson):
    """The text ends within a value; ``empty``: there was only white space."""

    def __init__(self, *, empty: bool) -> None:
        super().__init__("EOF" if empty else "unexpected EOF")
        self.empty = empty


def skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def end_of_value(data: bytes) -> int:
    """The position after the last byte of the first value.

    :raises NotJson: it is malformed.
    """
    text = data.decode("latin-1")
    at = skip_space(text, 0)
    if at == len(text):
        raise EndOfInput(empty=True)
    return _Scan(text).value(at)


def unexpected(character: str, where: str) -> NotJson:
    return NotJson(f"invalid character {_quoted(character)} {where}")


def _quoted(character: str) -> str:
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    if character == "\\":
        return r"'\\'"
    code = ord(character)
    if character in _ESCAPES:
        shown = _ESCAPES[character]
    elif code < 0x20 or code == 0x7F:
        shown = f"\\x{code:02x}"
    elif 0x80 <= code <= 0xA0 or code == 0xAD:
        shown = f"\\u{code:04x}"
    else:
        shown = character
    return f"'{shown}'"


class _Scan:
    """Go's state machine as a loop, with a stack of the open ``{`` and ``[``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _at(self, at: int) -> str:
        if at >= len(self._text):
            raise EndOfInput(empty=False)
        return self._text[at]

    def value(self, at: int) -> int:
        open_: list[str] = []
        while True:
            at = self._begin(skip_space(self._text, at), open_)
            if at < 0:  # an object or array was opened, and its first value comes next
                at = -at
                continue
            at = self._close(at, open_)
            if at >= 0:
                return at
            at = -at

    def _begin(self, at: int, open_: list[str]) -> int:
        """Read a scalar, or open an object or an array. The result is negative if a value must follow."""
        character = self._at(at)
        if character in "{[":
            open_.append(character)
            if len(open_) > _DEPTH_MAX:
                raise NotJson("exceeded max depth")
            inside = skip_space(self._text, at + 1)
            if self._at(inside) == ("}" if character == "{" else "]"):
                open_.pop()
                return inside + 1
            return -(self._key(inside) if character == "{" else inside)
        if character == '"':
            return self._string(at + 1)
        if character == "-" or character in _DIGITS:
            return self._number(at)
        if character in _WORDS:
            return self._word(at, _WORDS[character])
        raise unexpected(character, "looking for beginning of value")

    def _close(self, at: int, open_: list[str]) -> int:
        """After a value: the end of the text, or, as a negative number, where the next value begins."""
        while open_:
            at = skip_space(self._text, at)
            character = self._at(at)
            inside_object = open_[-1] == "{"
            if character == ",":
                at = skip_space(self._text, at + 1)
                return -(self._key(at) if inside_object else at)
            if character != ("}" if inside_object else "]"):
                raise unexpected(
                    character, "after object key:value pair" if inside_object else "after array element"
                )
            open_.pop()
            at += 1
        return at

    def _key(self, at: int) -> int:
        character = self._at(at)
        if character != '"':
            raise unexpected(character, "looking for beginning of object key string")
        at = skip_space(self._text, self._string(at + 1))
        character = self._at(at)
        if character != ":":
            raise unexpected(character, "after object key")
        return at + 1

    def _string(self, at: int) -> int:
        while (character := self._at(at)) != '"':
            if character == "\\":
                at = self._escape(at + 1)
                continue
            if character < " ":
                raise unexpected(character, "in string literal")
            at += 1
        return at + 1

    def _escape(self, at: int) -> int:
        character = self._at(at)
        if character == "u":
            for offset in range(1, 5):
                if self._at(at + offset) not in _HEX:
                    raise unexpected(self._at(at + offset), "in \\u hexadecimal character escape")
            return at + 5
        if character not in 'bfnrt\\/"':
            raise unexpected(character, "in string escape code")
        return at + 1

    def _number(self, at: int) -> int:
        text = self._text
        if text[at] == "-":
            at += 1
            if self._at(at) not in _DIGITS:
                raise unexpected(self._at(at), "in numeric literal")
        at = at + 1 if text[at] == "0" else self._digits(at)
        if text[at : at + 1] == ".":
            at += 1
            if self._at(at) not in _DIGITS:
                raise unexpected(self._at(at), "after decimal point in numeric literal")
            at = self._digits(at)
        if text[at : at + 1] in ("e", "E"):
            at += 1
            if self._at(at) in "+-":
                at += 1
            if self._at(at) not in _DIGITS:
                raise unexpected(self._at(at), "in exponent of numeric literal")
            at = self._digits(at)
        return at

    def _digits(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in _DIGITS:
            at += 1
        return at

    def _word(self, at: int, word: str) -> int:
        for offset, wanted in enumerate(word):
            if self._at(at + offset) != wanted:
                raise unexpected(self._at(at + offset), f"in literal {word} (expecting '{wanted}')")
        return at + len(word)
