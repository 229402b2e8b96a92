"""What a log driver says about the container besides its lines: the tag, labels and environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.errors import InvalidArgument

DEFAULT_TAG = "{{.ID}}"
_SHORT = 12
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName", "Command")


@dataclass(frozen=True)
class Facts:
    """A container as log drivers see it. ``created`` in nanoseconds since the epoch."""

    id: str
    name: str
    image_name: str = ""
    image_id: str = ""
    command: str = ""
    created: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    env: tuple[str, ...] = ()


def check(template: str) -> None:
    """:raises InvalidArgument: it names what a container does not have."""
    render(template, Facts(id="", name=""))


def render(template: str, facts: Facts) -> str:
    """A tag: text with fields, ``{{.Name}}/{{.ID}}``. Of Go's templates the fields are all there is.

    :raises InvalidArgument: an unknown field, or more than a field.
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
        name = match[1]
        if not name.startswith(".") or name[1:] not in values:
            known = ", ".join(f"{{{{.{f}}}}}" for f in _FIELDS)
            raise InvalidArgument(f"invalid tag template {template!r}: {match[0]} is none of {known}")
        return values[name[1:]]

    text = _ACTION.sub(replaced, template)
    if "{{" in _ACTION.sub("", template):
        raise InvalidArgument(f"invalid tag template {template!r}: an action is not closed")
    return text


def attributes(
    facts: Facts,
    options: Mapping[str, str],
    labels_pattern: re.Pattern[str] | None = None,
    env_pattern: re.Pattern[str] | None = None,
) -> dict[str, str]:
    """The labels and variables that ``labels``, ``labels-regex``, ``env`` and ``env-regex`` choose."""
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
