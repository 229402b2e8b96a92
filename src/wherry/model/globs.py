"""Patterns of Dockerfiles, matched in time that a hostile pattern cannot make explode.

Between two stars the first place that fits is as good as any later one, so nothing before the last star is
ever tried twice: atomic groups say so to :mod:`re`. One kind of pattern serves parameter expansion
(``${name%pattern}``), where a star crosses slashes, another serves paths, where it does not and ``**`` does.
"""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument

_LITERAL, _ONE, _STAR, _MANY, _CLASS = "literal", "one", "star", "many", "class"
_Token = tuple[str, str]
_REPLACED_MAX = 16384


def path_pattern(pattern: str, *, double_star: bool = True) -> re.Pattern[str]:
    """A pattern over slash-separated paths, to be used with ``fullmatch``.

    ``*`` and ``?`` stop at slashes, ``[…]`` is a class as of Go's ``filepath.Match``, a backslash takes the
    next character as it is. With ``double_star``, ``**`` is any number of directories and ``**`` at the end
    anything, as ``.dockerignore`` has it.
    :raises InvalidArgument: a class without its end.
    """
    return re.compile(_path_regex(_path_tokens(pattern, double_star=double_star)), re.DOTALL)


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
    """A regular expression for the class whose first character stands at ``at``, and where it ends."""
    begin = at
    negated = pattern[at : at + 1] == "^"
    at += negated
    parts: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not parts):
        low, at = _class_character(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _class_character(pattern, at + 1)
        if high < low:
            raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
        parts.append(f"{re.escape(low)}-{re.escape(high)}")
    if at >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern: {pattern!r} lacks the end of [{pattern[begin:]}")
    # A class never matches a slash, not even a negated one.
    return (f"(?!/)[{'^' if negated else ''}{''.join(parts)}]", at + 1)


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        return pattern[at + 1], at + 2
    return pattern[at], at + 1


def _path_regex(tokens: list[_Token]) -> str:
    segments: list[list[_Token]] = [[]]
    for token in tokens:
        if token[0] == _MANY:
            segments.append([])
        else:
            segments[-1].append(token)
    # The first segment stands at the beginning; those between are where they fit first.
    regex = _chunks(segments[0], last=len(segments) == 1)
    for number, segment in enumerate(segments[1:], 1):
        final = number == len(segments) - 1
        if final and not segment:
            regex += ".*"
        elif final:
            regex += f"(?:.*/)?{_chunks(segment, last=True)}"
        else:
            regex += f"(?>(?:.*?/)??{_chunks(segment, last=False)})"
    return regex


def _between_stars(tokens: list[_Token], *, one: str) -> list[str]:
    """Regular expressions of what stands before, between and after the stars; ``one`` is that of ``?``."""
    parts: list[str] = [""]
    for kind, text in tokens:
        if kind == _STAR:
            parts.append("")
        else:
            parts[-1] += re.escape(text) if kind == _LITERAL else one if kind == _ONE else text
    return parts


def _chunks(tokens: list[_Token], *, last: bool) -> str:
    """One segment: what follows a star is taken where it fits first, but for the end of the whole."""
    parts = _between_stars(tokens, one="[^/]")
    regex = parts[0]
    for number, part in enumerate(parts[1:], 1):
        if number == len(parts) - 1 and (last or not part):
            regex += f"[^/]*{part}"
        else:
            regex += f"(?>[^/]*?{part})"
    return regex


# ---- parameter expansion -----------------------------------------------------------------------------------


def _text_tokens(pattern: str) -> list[_Token]:
    """:raises InvalidArgument: a backslash before what needs none."""
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


def _text_regex(tokens: list[_Token], *, longest: bool) -> str:
    """Stars cross everything. Only the last one has a choice: as much as fits, or as little."""
    parts = _between_stars(tokens, one=".")
    regex = parts[0]
    for number, part in enumerate(parts[1:], 1):
        final = number == len(parts) - 1
        regex += f"(?>.*?{part})" if not final else f".*{part}" if longest else f".*?{part}"
    return regex


def without_prefix(pattern: str, value: str, *, longest: bool) -> str:
    """``${value#pattern}``, with ``longest`` ``##``. :raises InvalidArgument: no such pattern."""
    found = re.match(_text_regex(_text_tokens(pattern), longest=longest), value, re.DOTALL)
    return value[found.end() :] if found else value


def without_suffix(pattern: str, value: str, *, longest: bool) -> str:
    """``${value%pattern}``, with ``longest`` ``%%``. :raises InvalidArgument: no such pattern."""
    backwards = _text_tokens(pattern)[::-1]
    found = re.match(_text_regex(backwards, longest=longest), value[::-1], re.DOTALL)
    return value[: len(value) - found.end()] if found else value


def replaced(pattern: str, value: str, replacement: str, *, every: bool) -> str:
    """``${value/pattern/replacement}``, with ``every`` ``//``.

    :raises InvalidArgument: no such pattern, or a value so long that to look from each place takes long.
    """
    if len(value) > _REPLACED_MAX:
        raise InvalidArgument(f"cannot replace in a value of more than {_REPLACED_MAX} characters")
    regex = re.compile(_text_regex(_text_tokens(pattern), longest=True), re.DOTALL)
    return regex.sub(lambda _: replacement, value, count=0 if every else 1)
