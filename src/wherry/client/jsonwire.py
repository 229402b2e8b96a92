"""JSON without the import cost of :mod:`json` (its ``re`` and ``enum`` are most of the client's start-up).

The scanner and the string encoder are the C halves that :mod:`json` itself uses.
"""

from __future__ import annotations

from _json import encode_basestring, encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

WHITESPACE = " \t\n\r"


class _Settings:
    """The settings that the C scanner reads when it is made, as in ``json.JSONDecoder``."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}


_scan = make_scanner(_Settings())  # type: ignore[arg-type]


def loads(data: bytes | str) -> Any:
    """Decode one JSON text.

    :raises ValueError: malformed, cut short, followed by something else, or nested too deeply.
    """
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        value, end = _scan(text, _skip(text, 0))
    except StopIteration:
        raise ValueError("malformed JSON") from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if _skip(text, end) != len(text):
        raise ValueError("malformed JSON: text after the value")
    return value


def _skip(text: str, index: int) -> int:
    while index < len(text) and text[index] in WHITESPACE:
        index += 1
    return index


def messages(chunks: Iterable[bytes]) -> Iterator[Any]:
    """Decode a stream of JSON values, with or without line breaks between them, from pieces of any size.

    :raises ValueError: a value that is malformed or cut short by the end of the stream.
    """
    pending = b""
    for chunk in chunks:
        lines = (pending + chunk).split(b"\n")
        pending = lines.pop()
        for line in lines:
            if line.strip():
                yield from _values(line)
    if pending.strip():
        yield from _values(pending)


def _values(line: bytes) -> Iterator[Any]:
    text = line.decode("utf-8", "replace").strip()
    index = 0
    while index < len(text):
        try:
            value, end = _scan(text, index)
        except (StopIteration, RecursionError):
            raise ValueError("malformed JSON in a stream") from None
        yield value
        index = _skip(text, end)


def dumps(value: Any, *, ascii_only: bool = True) -> str:
    """Encode compactly, keys in the order of the mapping.

    :raises TypeError: a value that cannot be written as JSON.
    """
    return "".join(_parts(value, encode_basestring_ascii if ascii_only else encode_basestring))


def _parts(value: Any, quote: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield quote(value)
    elif value is None:
        yield "null"
    elif value is True or value is False:
        yield "true" if value else "false"
    elif isinstance(value, (int, float)):
        yield repr(value)
    elif isinstance(value, dict):
        separator = "{"
        for key, member in value.items():
            yield f"{separator}{quote(str(key))}:"
            yield from _parts(member, quote)
            separator = ","
        yield "}" if value else "{}"
    elif isinstance(value, (list, tuple)):
        separator = "["
        for member in value:
            yield separator
            yield from _parts(member, quote)
            separator = ","
        yield "]" if value else "[]"
    else:
        raise TypeError(f"cannot encode {type(value).__name__} as JSON")


def indented(value: Any, indent: str) -> str:
    """Encode over several lines, members in the order of the mapping; text stays as it is."""
    return "".join(_lines(value, "\n", indent))


def _lines(value: Any, newline: str, indent: str) -> Iterator[str]:
    inner = newline + indent
    if isinstance(value, dict) and value:
        separator = "{"
        for key, member in value.items():
            yield f"{separator}{inner}{encode_basestring(str(key))}: "
            yield from _lines(member, inner, indent)
            separator = ","
        yield newline + "}"
    elif isinstance(value, list) and value:
        separator = "["
        for member in value:
            yield separator + inner
            yield from _lines(member, inner, indent)
            separator = ","
        yield newline + "]"
    else:
        yield dumps(value, ascii_only=False)
