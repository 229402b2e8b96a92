"""Kinds of values that only Compose files have: commands, hosts, limits, external objects."""

from __future__ import annotations

from wherry.compose import shorthand
from wherry.compose.kinds import Field, Object, ValueKind, Words, go_text, named
from wherry.compose.order import JSON, in_order
from wherry.compose.places import RESET, FileError, Map, Place, Seq, mapping, sequence
from wherry.compose.scalars import INT_SET, boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.compose.kinds import Convert

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def valid_name(name: str) -> bool:
    """Whether a name of a service, network, volume … is valid."""
    return bool(name) and set(name) <= _NAME


class Through(ValueKind):
    """A kind with a conversion of its short form."""

    def __init__(self, convert: Convert, kind: ValueKind) -> None:
        self._convert, self._kind = convert, kind
        self.words = kind.words

    def read(self, value: Any, at: Place, path: str) -> Any:
        return self._kind.read(self._convert(value, at, path), at, path)

    def arrange(self, value: Any, form: str = JSON) -> Any:
        return self._kind.arrange(value, form)


class CommandForm(ValueKind):
    """A command line, or its words; null keeps the image's command."""

    words = "a command line or a list of words"
    keep_empty = True

    def read(self, value: Any, at: Place, path: str) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                return sequence(list(shorthand.words(value)), at)
            except ValueError as e:
                raise FileError(at, path, f"is not a command line: {e}") from None
        if not isinstance(value, Seq):
            raise self.refuse(value, at, path)
        for index, one in enumerate(value):
            if not isinstance(one, str):
                what = f'must be a string, not {named(one)}; write "{go_text(one)}"'
                if isinstance(one, (dict, list)) or one is None:
                    what = f"must be a string, not {named(one)}"
                raise FileError(value.place(index), f"{path}[{index}]", what)
        return value


class Test(ValueKind):
    """The command of a health check: a command line for a shell, or a list that begins with its form."""

    words = "a command line or a list that begins with CMD, CMD-SHELL or NONE"

    def read(self, value: Any, at: Place, path: str) -> Any:
        if isinstance(value, str):
            return sequence(["CMD-SHELL", value], at)
        if not isinstance(value, Seq):
            raise self.refuse(value, at, path)
        for index, one in enumerate(value):
            if not isinstance(one, str):
                raise FileError(value.place(index), f"{path}[{index}]", f"must be a string, not {named(one)}")
        if value and value[0] not in ("CMD", "CMD-SHELL", "NONE"):
            raise FileError(
                value.place(0), path, f"must begin with CMD, CMD-SHELL or NONE, not {named(value[0])}"
            )
        return value


class Hosts(ValueKind):
    """Names and their addresses; written as ``NAME=ADDRESS``, sorted by name, as a list."""

    words = "a mapping or a list of NAME=ADDRESS"

    def read(self, value: Any, at: Place, path: str) -> Any:
        if isinstance(value, Map):
            pairs = [(name, one, value.place(name)) for name, one in value.items()]
        elif isinstance(value, Seq):
            pairs = [self._pair(one, value.place(i), f"{path}[{i}]") for i, one in enumerate(value)]
        else:
            raise self.refuse(value, at, path)
        made = Map(value.at)
        made.override = value.override
        for name, addresses, place in pairs:
            if addresses is RESET:
                made.put(name, RESET, place)
                continue
            for address in addresses if isinstance(addresses, list) else [addresses]:
                if not isinstance(address, str) or not address:
                    raise FileError(place, f"{path}.{name}", f"must be an address, not {named(address)}")
                known = made.get(name) or Seq(place)
                known.add(address.removeprefix("[").removesuffix("]"), place)
                made.put(name, known, place)
        return made

    def _pair(self, one: Any, place: Place, path: str) -> tuple[str, Any, Place]:
        if not isinstance(one, str):
            raise FileError(place, path, f"must be a string NAME=ADDRESS, not {named(one)}")
        equals, colon = one.find("="), one.find(":")
        at = equals if equals >= 0 else colon
        if at <= 0:
            raise FileError(place, path, f'must be NAME=ADDRESS, not "{one}"')
        return one[:at], one[at + 1 :], place

    def arrange(self, value: Any, form: str = JSON) -> Any:
        pairs = [(name, address) for name in value for address in value[name]]
        return sorted(f"{name}={address}" for name, address in pairs)


class UlimitForm(Object):
    """A number, or ``soft`` and ``hard``."""

    def __init__(self) -> None:
        fields: dict[str, Field | ValueKind] = {"single": INT_SET, "soft": INT_SET, "hard": INT_SET}
        super().__init__(fields, short=shorthand.ulimit)

    def read(self, value: Any, at: Place, path: str) -> Any:
        made = super().read(value, at, path)
        if isinstance(value, Map) and ("single" in value or not {"soft", "hard"} <= set(value)):
            raise FileError(at, path, "must be a whole number or a mapping of soft and hard")
        return made

    def arrange(self, value: Any, form: str = JSON) -> Any:
        return value["single"] if "single" in value else super().arrange(value, form)


class Names(ValueKind):
    """A list of names, or a mapping of names to details."""

    words = "a list of names or a mapping"

    def __init__(self, what: str, item: Object | None = None) -> None:
        self._what, self._item = what, item

    def read(self, value: Any, at: Place, path: str) -> Any:
        if self._what == "ssh":
            return Words("").read(value, at, path)
        if isinstance(value, Seq):
            value = shorthand.names(self._default)(value, at, path)
        if not isinstance(value, Map) or self._item is None:
            raise self.refuse(value, at, path)
        made = Map(value.at)
        made.override = value.override
        for name, one in value.items():
            place = value.place(name)
            if one is RESET or (one is None and self._what != "depends_on"):
                made.put(name, one, place)
                continue
            read = self._item.read(one, place, f"{path}.{name}")
            if self._what == "depends_on":
                read.setdefault("required", True)
            made.put(name, read, place)
        return made

    def _default(self, at: Place) -> Any:
        return (
            mapping({"condition": "service_started", "required": True}, at)
            if self._what == "depends_on"
            else None
        )

    def arrange(self, value: Any, form: str = JSON) -> Any:
        names = in_order(value, form)
        if self._item is None:
            return [name + (f"={value[name]}" if value[name] else "") for name in names]
        return {
            name: None if value[name] is None else self._item.arrange(value[name], form) for name in names
        }


class External(ValueKind):
    """``true``; the old form is a mapping with the name."""

    words = "true or false"

    def read(self, value: Any, at: Place, path: str) -> Any:
        if isinstance(value, Map):
            unknown = [key for key in value if key != "name"]
            if unknown:
                raise FileError(value.place(unknown[0]), path, f"does not know the key '{unknown[0]}'")
            return value
        return shorthand.external(value, at, path)


class Provenance(ValueKind):
    """``true``, ``false`` or parameters, as a string."""

    words = "true, false or a string"

    def read(self, value: Any, at: Place, path: str) -> Any:
        if isinstance(value, str):
            return value
        try:
            return str(boolean(value)).lower()
        except ValueError:
            raise self.refuse(value, at, path) from None
