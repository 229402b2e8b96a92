"""Values with their positions in files: dictionaries and lists that keep a place for each member."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Place:
    """A file, and the line and column in it, counted from 1. Line 0 is the file as a whole."""

    __slots__ = ("column", "file", "line")

    def __init__(self, file: str, line: int = 0, column: int = 0) -> None:
        self.file, self.line, self.column = file, line, column

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


NOWHERE = Place("")


class ComposeError(InvalidArgument):
    """An error in a Compose file, or in a request about one."""


class FileError(ComposeError):
    """An error in a file: the place, the key, the problem and a correct value."""

    def __init__(self, place: Place, path: str, text: str) -> None:
        where = f"{place}: " if place.file else ""
        super().__init__(f"{where}{path} {text}" if path else f"{where}{text}")
        self.place, self.path, self.text = place, path, text


class Map(dict[str, "Any"]):
    """A mapping. ``places`` has the place of each member's value, ``at`` its own."""

    __slots__ = ("at", "named", "override", "places")

    def __init__(self, at: Place = NOWHERE) -> None:
        super().__init__()
        self.at = at
        self.places: dict[str, Place] = {}
        self.named: dict[str, Place] = {}
        """The places of the keys themselves, as a file has them."""
        self.override = False
        """Whether it was tagged ``!override``: it replaces the values of other files."""

    def put(self, key: str, value: Any, place: Place) -> None:
        self[key] = value
        self.places[key] = place

    def place(self, key: str) -> Place:
        """The place of a member; the mapping's place if the member is not in a file."""
        return self.places.get(key, self.at)


class Seq(list["Any"]):
    """A list. ``places`` has the place of each item, ``at`` its own."""

    __slots__ = ("at", "override", "places")

    def __init__(self, at: Place = NOWHERE) -> None:
        super().__init__()
        self.at = at
        self.places: list[Place] = []
        self.override = False

    def add(self, value: Any, place: Place) -> None:
        self.append(value)
        self.places.append(place)

    def place(self, index: int) -> Place:
        return self.places[index] if index < len(self.places) else self.at


class Unresolved(str):
    """A text with variables that are not expanded; it may stand for a value of any type."""

    __slots__ = ()


def unresolved(value: Any) -> Any:
    """A copy of a tree in which every text with a variable is :class:`Unresolved`."""
    if isinstance(value, str):
        return Unresolved(value) if "$" in value else value
    made = copied(value)
    if isinstance(made, dict):
        for key, one in made.items():
            made[key] = unresolved(one)
    elif isinstance(made, list):
        made[:] = [unresolved(one) for one in made]
    return made


class Reset:
    """The value of a key tagged ``!reset``: the values of other files are removed."""

    __slots__ = ()


RESET = Reset()


def place_of(value: Any, otherwise: Place) -> Place:
    return value.at if isinstance(value, (Map, Seq)) else otherwise


def mapping(pairs: dict[str, Any], at: Place) -> Map:
    """A mapping that was made of a short form at one place."""
    made = Map(at)
    for key, value in pairs.items():
        made.put(key, value, at)
    return made


def sequence(items: list[Any], at: Place) -> Seq:
    made = Seq(at)
    for item in items:
        made.add(item, at)
    return made


def copied(value: Any) -> Any:
    """A deep copy."""
    if isinstance(value, Map):
        made = Map(value.at)
        made.override, made.named = value.override, value.named
        for key, member in value.items():
            made.put(key, copied(member), value.place(key))
        return made
    if isinstance(value, Seq):
        items = Seq(value.at)
        items.override = value.override
        for index, member in enumerate(value):
            items.add(copied(member), value.place(index))
        return items
    return value
