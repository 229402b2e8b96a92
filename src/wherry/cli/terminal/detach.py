"""Detach keys: the sequence that leaves a container running and gives the terminal back.

They are looked for here, where it is certain what was typed; the daemon knows them too, for clients that do
not look.
"""

from __future__ import annotations

from wherry.errors import InvalidArgument

DEFAULT = b"\x10\x11"
"""ctrl-p, ctrl-q"""
CONTROLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
"""The character after ``ctrl-``, in the order of the codes it makes."""


def parse(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``x,y`` as bytes; empty text is the default.

    :raises InvalidArgument: a key that is neither a single character nor ``ctrl-`` and one.
    """
    if not text:
        return DEFAULT
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
        elif len(key) == 6 and key.startswith("ctrl-") and key[5].lower() in CONTROLS:
            keys.append(CONTROLS.index(key[5].lower()))
        else:
            raise InvalidArgument(f"invalid detach keys ({text}): Unknown character: '{key}'")
    return bytes(keys)


class Watch:
    """Passes typed bytes through and holds back what may be the beginning of the sequence."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to send on, and whether the sequence is complete."""
        data = self._held + data
        end = data.find(self._keys)
        if end >= 0:
            self._held = b""
            return data[:end], True
        size = next((n for n in range(len(self._keys) - 1, 0, -1) if data.endswith(self._keys[:n])), 0)
        self._held = data[len(data) - size :]
        return data[: len(data) - size], False
