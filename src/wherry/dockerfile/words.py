"""Words and variables of a Dockerfile, as its reference describes them ("Environment replacement").

Quotes group words and are removed, the escape character makes the next one literal, and ``$name`` or
``${name…}`` is replaced by a value, with the modifiers ``:-  -  :+  +  :?  ?  #  ##  %  %%  /  //``.
Inside double quotes the escape character is kept except before ``"``, ``$`` and itself; inside single
quotes nothing is special.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.model import globs

_SPECIAL = frozenset("@*#?-$!0")
"""Names of one character: the shell's special parameters. A Dockerfile never sets them."""
_DEPTH_MAX = 32
_SIZE_MAX = 1 << 20
"""The maximum length of a result: variables that contain each other twice, line after line, would grow
exponentially."""


@dataclass(frozen=True)
class Expanded:
    """``text`` is the whole result, ``words`` are its parts, split at blanks that are not quoted or escaped.
    ``used`` and ``unset`` are the names that were used, set and not set; an unset name with an alternative
    (``${name:-…}``) is in neither."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


def expand(
    text: str, env: Mapping[str, str], *, escape: str = "\\", quotes: bool = True, variables: bool = True
) -> Expanded:
    """Expand one word or line.

    :param quotes: False: do not interpret quotes, as in here-documents. :param variables: the same for ``$``.
    :raises InvalidArgument: a quote or brace without its end, an unknown modifier, a variable that ``?``
        demands, or a result that is too long.
    """
    scanner = _Scanner(text, env, escape, quotes, variables)
    try:
        result, words = scanner.until("", raw=False)
    except InvalidArgument as e:
        raise InvalidArgument(f"failed to process {text[:200]!r}: {e.message}") from e
    return Expanded(result, tuple(words), frozenset(scanner.used), frozenset(scanner.unset))


def split(text: str, *, escape: str = "\\") -> list[str]:
    """The words of a line as they were written: quotes and escapes group them and are kept.

    An unclosed quote extends to the end of the line; an escape character at the end is dropped.
    """
    return _split(text, escape)[0]


def split_closed(text: str) -> list[str]:
    """As :func:`split`; no words if a quote is not closed."""
    words, quote = _split(text, "\\")
    return [] if quote else words


def _split(text: str, escape: str) -> tuple[list[str], str]:
    """The words, and the quote that is not closed."""
    words: list[str] = []
    word, quote, begun = "", "", False
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if begun:
                words.append(word)
            word, begun = "", False
            continue
        begun = True
        if char == escape and quote != "'":
            if at == len(text):
                break
            word += char + text[at]
            at += 1
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        word += char
    if begun and word:
        words.append(word)
    return words, quote


class _Words:
    """Collects words: unprotected blanks divide them."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._word: list[str] = []

    def plain(self, text: str) -> None:
        if text[:1].isspace():
            self._divide()
        for number, piece in enumerate(text.split()):
            if number:
                self._divide()
            self._word.append(piece)
        if text[-1:].isspace():
            self._divide()

    def protected(self, text: str) -> None:
        self._word.append(text)

    def _divide(self) -> None:
        if word := "".join(self._word):
            self._done.append(word)
        self._word.clear()

    def end(self) -> list[str]:
        self._divide()
        return self._done


class _Scanner:
    def __init__(self, text: str, env: Mapping[str, str], escape: str, quotes: bool, variables: bool) -> None:
        self._text, self._env, self._escape, self._quotes = text, env, escape, quotes
        self._sign = "$" if variables else ""
        self._at, self._depth, self._room = 0, 0, _SIZE_MAX
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def _peek(self) -> str:
        """The next character, ``""`` at the end."""
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def until(self, stop: str, *, raw: bool) -> tuple[str, list[str]]:
        """Read up to ``stop`` and past it, or to the end. ``raw`` keeps escape characters, for patterns."""
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise InvalidArgument("syntax error: substitutions nested too deeply")
        result: list[str] = []
        words = _Words()
        while char := self._next():
            if char == stop:
                break
            if char == self._sign:
                text = self._dollar()
                words.plain(text)
            elif char in "'\"" and self._quotes:
                text = self._single() if char == "'" else self._double(raw=raw)
                words.protected(text)
            elif char == self._escape:
                text = (char if raw else "") + self._next()
                words.protected(text)
            else:
                text = char
                words.plain(text)
            result.append(text)
            self._room -= len(text)
            if self._room < 0:
                raise InvalidArgument(f"it grows beyond {_SIZE_MAX} characters")
        else:
            if stop:
                raise InvalidArgument(f"syntax error: missing '{stop}'")
        self._depth -= 1
        return "".join(result), words.end()

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
        text, self._at = self._text[self._at : end], end + 1
        return text

    def _double(self, *, raw: bool) -> str:
        result: list[str] = []
        while char := self._next():
            if char == '"':
                return "".join(result)
            if char == self._sign:
                result.append(self._dollar())
            elif char == self._escape and self._peek() in ('"', "$", self._escape):
                result.append((char if raw else "") + self._next())
            else:
                result.append(char)
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    # ---- variables -------------------------------------------------------------------------------------

    def _name(self) -> str:
        first = self._peek()
        begin = self._at
        if first.isdigit():
            while self._peek().isdigit():
                self._at += 1
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            while (char := self._peek()) and (char.isalnum() or char == "_"):
                self._at += 1
        return self._text[begin : self._at]

    def _value(self, name: str) -> str | None:
        value = self._env.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _dollar(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return (self._value(name) or "") if name else "$"
        self._at += 1
        if not self._peek():
            raise InvalidArgument("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise InvalidArgument("syntax error: bad substitution")
        name = self._name()
        modifier = self._next()
        if modifier == "}":
            return self._value(name) or ""
        if not modifier:
            raise InvalidArgument("syntax error: missing '}'")
        if modifier == "/":
            return self._replacement(name)
        empty_counts = modifier != ":"
        if modifier == ":":
            modifier += self._next()
        kind = modifier[-1]
        if kind not in "-+?#%" or (not empty_counts and kind in "#%"):
            raise InvalidArgument(f"unsupported modifier ({modifier}) in substitution")
        word, _ = self.until("}", raw=kind in "#%")
        if kind in "#%":
            return self._trimmed(name, kind, word)
        return self._alternative(name, kind, word, empty_counts=empty_counts)

    def _alternative(self, name: str, kind: str, word: str, *, empty_counts: bool) -> str:
        value = self._env.get(name)
        if value is not None:
            self.used.add(name)
        there = value is not None and (empty_counts or value != "")
        if kind == "-":
            return value if value is not None and there else word
        if kind == "+":
            return word if there else ""
        if there:
            return value or ""
        lacks = "unset" if value is None else "empty"
        raise InvalidArgument(f"{name}: {word or f'is not allowed to be {lacks}'}")

    def _trimmed(self, name: str, kind: str, pattern: str) -> str:
        longest = pattern.startswith(kind)
        cut = globs.without_prefix if kind == "#" else globs.without_suffix
        return cut(pattern[1:] if longest else pattern, self._value(name) or "", longest=longest)

    def _replacement(self, name: str) -> str:
        every = self._peek() == "/"
        self._at += every
        pattern, _ = self.until("/", raw=True)
        replacement, _ = self.until("}", raw=True)
        return globs.replaced(pattern, self._value(name) or "", replacement, every=every)
