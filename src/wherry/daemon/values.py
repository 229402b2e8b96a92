"""Parse and check single values of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument
from wherry.linux import cgroups
from wherry.model.container import Ulimit


def runtime(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise InvalidArgument(f"invalid runtime {text!r}: expected NAME=PATH")
    return name, path


def address_pool(text: str) -> tuple[str, int]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if set(fields) != {"base", "size"} or not fields["size"].isdigit():
        raise InvalidArgument(f"invalid address pool {text!r}: expected base=CIDR,size=N")
    return fields["base"], int(fields["size"])


def ulimit(text: str) -> Ulimit:
    """``nofile=1024:2048``; one number is both limits."""
    name, equals, numbers = text.partition("=")
    soft, _, hard = numbers.partition(":")
    try:
        limit = Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError as e:
        raise InvalidArgument(f"invalid ulimit argument: {text}") from e
    if not equals:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    return limit


def directory(path: str | Path) -> Path:
    resolved = Path(path).absolute()
    if ":" in str(resolved) or "," in str(resolved):
        # Both characters separate options of overlay mounts.
        raise InvalidArgument(f"invalid directory {resolved}: it must not contain ':' or ','")
    return resolved


def cgroup(path: str) -> str:
    """:raises InvalidArgument: it would lead out of the cgroup hierarchies."""
    cgroups.check_parent(path)
    return path


def profile(path: str | None) -> str:
    """A seccomp profile: empty for the built-in one, ``unconfined``, or a file."""
    return (
        "" if path in (None, "", "builtin") else path if path == "unconfined" else str(Path(path).absolute())
    )


def parsed(parse: Any, text: str, what: str) -> Any:
    try:
        return parse(text)
    except ValueError as e:
        raise InvalidArgument(f"invalid {what}: {e}") from e


def between(value: int | None, low: int, high: int, what: str, default: int) -> int:
    if value is None:
        return default
    if not low <= value <= high:
        raise InvalidArgument(f"invalid {what} {value}: it must be from {low} to {high}")
    return value


def size(value: str | int | None, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, int):
        return value
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    text = value.lower().removesuffix("b").removesuffix("i")
    factor = units.get(text[-1:], 1)
    number = text[:-1] if text[-1:] in units else text
    if not number.isdigit():
        raise InvalidArgument(f"invalid size: {value!r}")
    return int(number) * factor
