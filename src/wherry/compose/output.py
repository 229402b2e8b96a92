"""A project as text: what ``config`` prints, in YAML or JSON, as Docker's plugin writes it."""

from __future__ import annotations

from wherry.compose import gojson, hashing, schema
from wherry.compose.kinds import Free
from wherry.compose.order import YAML, naturally
from wherry.compose.yamlfile import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.compose.project import Project

_SECTIONS = (
    ("networks", schema.NETWORK),
    ("volumes", schema.VOLUME_DEFINITION),
    ("secrets", schema.SECRET),
    ("configs", schema.CONFIG),
    ("models", schema.MODEL),
)
_OLD_BOOLEANS = frozenset("y Y yes Yes YES on On ON n N no No NO off Off OFF".split())


def as_json(project: Project) -> str:
    made: dict[str, Any] = {"name": project.name}
    made["services"] = {name: hashing.written(project.services[name]) for name in sorted(project.services)}
    for section, kind in _SECTIONS:
        held = getattr(project, section)
        if held and section != "models":
            made[section] = {name: kind.arrange(held[name]) for name in sorted(held)}
    made |= project.extensions
    made.setdefault("networks", {})
    if not made["networks"]:
        del made["networks"]
    return gojson.indented({key: made[key] for key in sorted(made)})


def as_yaml(project: Project) -> str:
    made: dict[str, Any] = {"name": project.name}
    services = {}
    for name in naturally(project.services):
        services[name] = schema.SERVICE.arrange(project.services[name], YAML)
    made["services"] = services
    for section, kind in _SECTIONS:
        held = getattr(project, section)
        if held:
            made[section] = {name: kind.arrange(held[name], YAML) for name in naturally(held)}
    made |= {key: Free().arrange(project.extensions[key], YAML) for key in naturally(project.extensions)}
    return dump(made)


def dump(value: Any) -> str:
    """YAML in block style, indented by two spaces per level."""
    return "".join(line + "\n" for line in _block(value, ""))


def _block(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _entry(f"{indent}{_scalar(key)}:", one, indent)
    else:
        for one in value:
            yield from _entry(f"{indent}-", one, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        lines = list(_block(value, inner))
        if head.endswith("-"):
            yield f"{head} {lines[0][len(inner) :]}"
            yield from lines[1:]
        else:
            yield head
            yield from lines
    elif isinstance(value, list) and value:
        yield head
        yield from _block(value, inner)
    elif isinstance(value, str) and "\n" in value and _fits_block(value):
        mark = "|" + ("" if value.endswith("\n") else "-")
        if value.endswith("\n\n"):
            mark = "|+"
        yield f"{head} {mark}"
        lines = value.split("\n")
        for line in lines[:-1] if value.endswith("\n") else lines:
            yield inner + line if line else ""
    else:
        shown = "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else _scalar(value)
        yield f"{head} {shown}"


_UNREADABLE = frozenset(map(chr, (*range(0x7F, 0x85), *range(0x86, 0xA0), 0xFFFE, 0xFFFF)))
"""What JSON has as it is and YAML only escaped (yaml.org/spec/1.2.2, 5.1)."""


def _fits_block(text: str) -> bool:
    return not text[0].isspace() and all(c.isprintable() or c in "\n\t" for c in text) and " \n" not in text


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number(value)
    return quoted(str(value))


def _number(value: float) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def quoted(text: str) -> str:
    """A string as a YAML scalar, quoted if it would otherwise have another type."""
    if not text or not isinstance(plain(text), str) or text in _OLD_BOOLEANS or text in ("<<", "="):
        return _double(text)
    if _sexagesimal(text):
        return _double(text)
    if not all(c.isprintable() or c == "\n" for c in text) or "\n" in text:
        return _double(text)
    return text if _plain(text) else "'" + text.replace("'", "''") + "'"


def _sexagesimal(text: str) -> bool:
    """Whether YAML 1.1 reads it as a base-60 number, such as ``12:30``."""
    parts = text.lstrip("+-").replace("_", "").split(":")
    return len(parts) > 1 and all(part.replace(".", "", 1).isdecimal() for part in parts)


def _plain(text: str) -> bool:
    if text[0] in "#,[]{}&*!|>'\"%@`" or text[0] == " " or text[-1] in " :":
        return False
    if text[0] in "-?:" and (len(text) == 1 or text[1] == " "):
        return False
    return not (": " in text or " #" in text or text.startswith(("---", "...")))


def _double(text: str) -> str:
    from _json import encode_basestring

    quoted = str(encode_basestring(text))
    if _UNREADABLE.isdisjoint(quoted):
        return quoted
    return "".join(f"\\u{ord(c):04x}" if c in _UNREADABLE else c for c in quoted)
