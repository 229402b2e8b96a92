"""``.env`` files, and the files of ``env_file``: NAME=VALUE lines, as Docker's plugin reads them.

    # comment            export NAME=value        NAME: value
    NAME                 its value comes from the environment
    A=plain # comment    B='as it is'             C="with\\nescapes and ${A}, over several lines"

The format ``raw`` takes each line's value as it is.
"""

from __future__ import annotations

from wherry.compose.interpolation import MalformedTemplate, Required, substitute
from wherry.compose.places import FileError, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Lookup = Callable[[str], str | None]

SIZE_MAX = 4 << 20
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-[]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def read(path: str, lookup: Lookup, *, raw: bool = False) -> dict[str, str | None]:
    """The variables of a file; None for a name without a value that is not set in the environment either.

    :raises FileError: it cannot be read, or a line is malformed.
    """
    from wherry.client.files import read_file

    try:
        data = read_file(path, most=SIZE_MAX + 1)
    except OSError as e:
        raise FileError(Place(path), "", f"cannot be read: {(e.strerror or str(e)).lower()}") from None
    if len(data) > SIZE_MAX:
        raise FileError(Place(path), "", f"is larger than {SIZE_MAX >> 20} MiB")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise FileError(Place(path, data[: e.start].count(b"\n") + 1, 1), "", "is not UTF-8") from None
    return _raw(text) if raw else _Parser(text, path, lookup).parse()


def _raw(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for line in text.split("\n"):
        stripped = line.lstrip()
        if stripped and not stripped.startswith("#"):
            name, _, value = stripped.partition("=")
            found[name.strip()] = value
    return found


class _Parser:
    def __init__(self, text: str, path: str, lookup: Lookup) -> None:
        self._text, self._path, self._lookup = text, path, lookup
        self._at = 0
        self._found: dict[str, str | None] = {}

    def parse(self) -> dict[str, str | None]:
        while self._skip():
            name, has_value = self._name()
            if has_value:
                self._found[name] = self._value()
            else:
                inherited = self._lookup(name)
                if inherited is not None:
                    self._found[name] = inherited
        return self._found

    def _problem(self, what: str) -> FileError:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - (self._text.rfind("\n", 0, self._at) + 1) + 1
        return FileError(Place(self._path, line, column), "", what)

    def _skip(self) -> bool:
        """Skip white space and comments. :returns: whether something follows."""
        text = self._text
        while self._at < len(text):
            if text[self._at].isspace():
                self._at += 1
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                return True
        return False

    def _name(self) -> tuple[str, bool]:
        text = self._text
        if text.startswith("export ", self._at):
            self._at += len("export ")
            while self._at < len(text) and text[self._at] in " \t":
                self._at += 1
        start = self._at
        while self._at < len(text) and text[self._at] in _NAME:
            self._at += 1
        name = text[start : self._at]
        while self._at < len(text) and text[self._at] in " \t":
            self._at += 1
        mark = text[self._at : self._at + 1]
        if not name:
            raise self._problem(f'unexpected character "{mark}" in variable name')
        if mark in ("=", ":"):
            self._at += 1
            return name, True
        if mark in ("\n", ""):
            return name, False
        raise self._problem(f'unexpected character "{mark}" in variable name "{name}"')

    def _value(self) -> str:
        text = self._text
        while self._at < len(text) and text[self._at] in " \t":
            self._at += 1
        quote = text[self._at : self._at + 1]
        if quote and quote in "'\"":
            return self._quoted(quote)
        end = text.find("\n", self._at)
        end = len(text) if end < 0 else end
        line = text[self._at : end]
        place = self._at
        self._at = end
        for index, character in enumerate(line):
            if character == "#" and (index == 0 or line[index - 1] in " \t"):
                line = line[:index]
                break
        return self._expanded(line.strip(), place)

    def _quoted(self, quote: str) -> str:
        start = self._at
        at = start + 1
        text = self._text
        while at < len(text) and text[at] != quote:
            at += 2 if text[at] == "\\" and quote == '"' else 1
        if at >= len(text):
            raise self._problem("unterminated quoted value")
        inner = text[start + 1 : at]
        self._at = at + 1
        if quote == "'":
            return inner
        return self._expanded(_unescaped(inner), start)

    def _expanded(self, value: str, place: int) -> str:
        try:
            return substitute(value, self._known, lambda _name: None)
        except (MalformedTemplate, Required) as e:
            self._at = place
            raise self._problem(f"{e}") from None

    def _known(self, name: str) -> str | None:
        outer = self._lookup(name)
        return outer if outer is not None else self._found.get(name)


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    made: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "\\" and at + 1 < len(text):
            following = text[at + 1]
            if following == "$":
                made.append("$$")
            elif following in _ESCAPES:
                made.append(_ESCAPES[following])
            else:
                made.append(following if following in '\\"' else f"\\{following}")
            at += 2
        else:
            made.append(character)
            at += 1
    return "".join(made)
