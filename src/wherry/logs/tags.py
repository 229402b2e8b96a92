"""A log driver's facts about a container: the tag, labels and environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.errors import InvalidArgument
from wherry.model.patterns import Pattern

DEFAULT_TAG = "{{.ID}}"
_SHORT = 12
_ACTION = re.compile(r"\{\{([^{}]*)\}\}")
_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName", "Command")


@dataclass(frozen=True)
class ContainerFacts:
    """A container's facts for log drivers. ``created`` in nanoseconds since the epoch."""

    id: str
    name: str
    image_name: str = ""
    image_id: str = ""
    command: str = ""
    created: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    env: tuple[str, ...] = ()


def check(template: str) -> None:
    """:raises InvalidArgument: it has a field that containers do not have."""
    render(template, ContainerFacts(id="", name=""))


def render(template: str, facts: ContainerFacts) -> str:
    """Render a tag: text with fields, ``{{.Name}}/{{.ID}}``. Of Go's templates only fields are supported.

    :raises InvalidArgument: an unknown field, or something other than a field.
    """
    values = {
        "ID": facts.id[:_SHORT],
        "FullID": facts.id,
        "Name": facts.name,
        "ImageName": facts.image_name,
        "ImageID": facts.image_id.partition(":")[2][:_SHORT],
        "ImageFullID": facts.image_id,
        "DaemonName": "docker",
        "Command": facts.command,
    }

    def replaced(match: re.Match[str]) -> str:
        name = match[1].removeprefix("-").removesuffix("-").strip()
        if not name.startswith(".") or name[1:] not in values:
            known = ", ".join(f"{{{{.{f}}}}}" for f in _FIELDS)
            raise InvalidArgument(f"invalid tag template {template!r}: {match[0]} is not one of {known}")
        return values[name[1:]]

    text = _ACTION.sub(replaced, template)
    if "{{" in _ACTION.sub("", template):
        raise InvalidArgument(f"invalid tag template {template!r}: an action is not closed")
    return text


def attributes(
    facts: ContainerFacts,
    options: Mapping[str, str],
    labels_pattern: Pattern | None = None,
    env_pattern: Pattern | None = None,
) -> dict[str, str]:
    """The labels and variables that ``labels``, ``labels-regex``, ``env`` and ``env-regex`` select."""
    env = dict(entry.partition("=")[::2] for entry in facts.env)
    found: dict[str, str] = {}
    for source, names, matches in (
        (facts.labels, options.get("labels", ""), labels_pattern),
        (env, options.get("env", ""), env_pattern),
    ):
        found |= {name: source[name] for name in names.split(",") if name in source}
        if matches is not None:
            found |= {name: value for name, value in source.items() if matches.search(name)}
    return found
