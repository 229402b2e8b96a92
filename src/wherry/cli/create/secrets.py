"""``--secret NAME[,target=,uid=,gid=,mode=]``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_secret(text: str) -> dict[str, Any]:
    """One ``--secret`` in the form of the member ``Secrets`` of ``HostConfig``.

    :raises ValueError: malformed, in the words of ``--mount``.
    """
    from csv import reader

    secret: dict[str, Any] = {}
    for number, field in enumerate(next(reader([text]), [])):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and number == 0:
            secret["Name"] = field
        elif not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        elif key in ("source", "src"):
            secret["Name"] = value
        elif key == "target":
            secret["Target"] = value
        elif key in ("uid", "gid"):
            secret[key.upper()] = _number(key, value, 10)
        elif key == "mode":
            secret["Mode"] = _number(key, value, 8)
        elif key == "type" and value == "mount":
            continue
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if not secret.get("Name"):
        raise ValueError("source is required")
    return secret


def _number(key: str, value: str, base: int) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"invalid value for {key}: {value}")
    try:
        return int(value, base)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None
