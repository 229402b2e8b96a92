"""The types of build checks: a rule, its input, and its findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from wherry.dockerfile.instructions import Dockerfile, Instruction
from wherry.errors import InvalidArgument
from wherry.model.ignore import Patterns
from wherry.solver.graph import Location


@dataclass(frozen=True)
class CheckFinding:
    """``rule`` is Docker's name of the check, ``detail`` its text about this place."""

    rule: str
    description: str
    detail: str
    location: Location

    @property
    def url(self) -> str:
        """The address of the rule's documentation."""
        dashed = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=JSON)(?=[A-Z])", "-", self.rule).lower()
        return f"https://docs.docker.com/go/dockerfile/rule/{dashed}/"


@dataclass(frozen=True)
class CheckOptions:
    """The ``check`` directive, or the build argument that replaces it. Names in lower case."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> CheckOptions:
        """:raises InvalidArgument: an unknown option."""
        values: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.split(";"))):
            key, equals, value = part.partition("=")
            if key.strip() not in ("skip", "error", "experimental") or not equals:
                raise InvalidArgument(f"invalid check option {part!r}: known are skip, error, experimental")
            values[key.strip()] = value.strip()
        error = values.get("error", "false").lower()
        if error not in ("true", "false", "1", "0"):
            raise InvalidArgument(f"invalid check option error={error!r}: it is true or false")
        return cls(
            _names(values.get("skip", "")), _names(values.get("experimental", "")), error in ("true", "1")
        )

    def wants(self, rule: CheckRule) -> bool:
        name = rule.name.lower()
        if rule.experimental and not self.experimental & {name, "all"}:
            return False
        return not self.skip & {name, "all"}


def _names(text: str) -> frozenset[str]:
    return frozenset(n.strip().lower() for n in text.split(",") if n.strip())


@dataclass(frozen=True)
class CheckContext:
    """The input of rules besides the Dockerfile.

    :ivar build_args: those of the request. :ivar ignored: the ``.dockerignore`` of the context.
    :ivar image_env: the names of the variables that a base image sets; None if unknown.
    """

    dockerfile: Dockerfile
    build_args: Mapping[str, str] = field(default_factory=dict)
    ignored: Patterns | None = None
    image_env: Callable[[str], Collection[str] | None] = lambda _base: None


Found = Iterator[tuple[Location, str]]


@dataclass(frozen=True)
class CheckRule:
    name: str
    description: str
    run: Callable[[CheckContext], Found]
    experimental: bool = False


def each_instruction(context: CheckContext) -> Iterator[Instruction]:
    for stage in context.dockerfile.stages:
        yield from stage.instructions
