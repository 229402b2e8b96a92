"""Globs in Dockerfiles, ignore files and names of images. They are translated to regular expressions for
:mod:`wherry.model.patterns`, which matches them in linear time.

One kind of pattern serves parameter expansion (``${name%pattern}``), in which a star matches slashes; another
serves paths, in which only ``**`` does.
"""

from __future__ import annotations

from wherry.errors import InvalidArgument
from wherry.model import patterns
from wherry.model.patterns import Pattern

_LITERAL, _ONE, _STAR, _MANY, _CLASS = "literal", "one", "star", "many", "class"
_Token = tuple[str, str]
_REPLACED_MAX = 16384


def path_pattern(pattern: str, *, double_star: bool = True) -> Pattern:
    """A pattern over slash-separated paths, to be used with ``fullmatch``.

    ``*`` and ``?`` stop at slashes, ``[…]`` is a class as of Go's ``filepath.Match``, a backslash escapes the
    next character. With ``double_star``, ``**`` is any number of directories and ``**`` at the end anything,
    as ``.dockerignore`` has it.
    :raises InvalidArgument: a class without its end, or it is too large.
    """
    tokens = _path_tokens(pattern, double_star=double_star)
    if all(kind == _LITERAL for kind, _ in tokens):
        return patterns.plain("".join(text for _, text in tokens))
    return patterns.one_of([_path_expression(tokens)])


def path_expression(pattern: str) -> str:
    """As :func:`path_pattern`, for :func:`wherry.model.patterns.one_of`."""
    return _path_expression(_path_tokens(pattern, double_star=True))


def _path_tokens(pattern: str, *, double_star: bool) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if double_star and pattern[at : at + 1] == "*":
                at += 1
                if pattern[at : at + 1] == "/":
                    at += 1
                tokens.append((_MANY, ""))
            else:
                tokens.append((_STAR, ""))
        elif char == "?":
            tokens.append((_ONE, ""))
        elif char == "[":
            text, at = _character_class(pattern, at)
            tokens.append((_CLASS, text))
        elif char == "\\" and at < len(pattern):
            tokens.append((_LITERAL, pattern[at]))
            at += 1
        else:
            tokens.append((_LITERAL, char))
    return tokens


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """The regular expression for the class that begins at ``at``, and the position after it."""
    begin = at
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        low, at = _class_character(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _class_character(pattern, at + 1)
        if high < low:
            raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
        ranges.append((low, high))
    if at >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern: {pattern!r} lacks the end of [{pattern[begin:]}")
    # A class never matches a slash, not even a negated one.
    if negated:
        return patterns.character_class([*ranges, ("/", "/")], negated=True), at + 1
    return patterns.character_class([r for one in ranges for r in _beside_slash(*one)], negated=False), at + 1


def _beside_slash(low: str, high: str) -> list[tuple[str, str]]:
    """The range, without the slash if it contains it."""
    if not low <= "/" <= high:
        return [(low, high)]
    below = [(low, ".")] if low <= "." else []
    return below + ([("0", high)] if high >= "0" else [])


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        return pattern[at + 1], at + 2
    return pattern[at], at + 1


def _path_expression(tokens: list[_Token]) -> str:
    expression = ""
    for number, token in enumerate(tokens):
        if token[0] == _MANY:
            expression += ".*" if number == len(tokens) - 1 else "(?:.*/)?"
        else:
            expression += _expression(token, one="[^/]", star="[^/]*")
    return expression


def _expression(token: _Token, *, one: str, star: str) -> str:
    kind, text = token
    if kind == _LITERAL:
        return patterns.escaped(text)
    return one if kind == _ONE else star if kind == _STAR else text


# ---- parameter expansion -----------------------------------------------------------------------------------


def _text_tokens(pattern: str) -> list[_Token]:
    """:raises InvalidArgument: a backslash before a character that is not special."""
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not tokens or tokens[-1][0] != _STAR:
                tokens.append((_STAR, ""))
        elif char == "?":
            tokens.append((_ONE, ""))
        elif char == "\\":
            following = pattern[at : at + 1]
            if following not in tuple("}/*?\\"):
                raise InvalidArgument(f"invalid pattern ({pattern}) in substitution: invalid escape")
            tokens.append((_LITERAL, following))
            at += 1
        else:
            tokens.append((_LITERAL, char))
    return tokens


def _text_pattern(tokens: list[_Token], *, longest: bool) -> Pattern:
    """Stars match any characters, as many as possible or as few as possible."""
    if all(kind == _LITERAL for kind, _ in tokens):
        return patterns.plain("".join(text for _, text in tokens))
    star = ".*" if longest else ".*?"
    return patterns.one_of(["".join(_expression(token, one=".", star=star) for token in tokens)])


def without_prefix(pattern: str, value: str, *, longest: bool) -> str:
    """``${value#pattern}``, with ``longest`` ``##``. :raises InvalidArgument: no such pattern."""
    length = _text_pattern(_text_tokens(pattern), longest=longest).prefix(value)
    return value if length is None else value[length:]


def without_suffix(pattern: str, value: str, *, longest: bool) -> str:
    """``${value%pattern}``, with ``longest`` ``%%``. :raises InvalidArgument: no such pattern."""
    backwards = _text_tokens(pattern)[::-1]
    length = _text_pattern(backwards, longest=longest).prefix(value[::-1])
    return value if length is None else value[: len(value) - length]


def replaced(pattern: str, value: str, replacement: str, *, every: bool) -> str:
    """``${value/pattern/replacement}``, with ``every`` ``//``.

    :raises InvalidArgument: a malformed pattern, or a value so long that matching at each position would take
        too long.
    """
    if len(value) > _REPLACED_MAX:
        raise InvalidArgument(f"cannot replace in a value of more than {_REPLACED_MAX} characters")
    found = _text_pattern(_text_tokens(pattern), longest=True)
    return found.replaced(value, replacement, count=0 if every else 1)
