"""``/version``, ``/info`` and events in the Engine API's shapes. Arguments are the engine's values."""

from __future__ import annotations

from typing import Any

from wherry.model.base import to_builtins
from wherry.model.events import Event


def event(value: Event, version: tuple[int, int]) -> dict[str, Any]:
    """One line of ``GET /events``."""
    out: dict[str, Any] = {
        "Type": value.type,
        "Action": value.action,
        "Actor": {"ID": value.actor, "Attributes": value.attributes},
        "scope": value.scope,
        "time": value.time // 10**9,
        "timeNano": value.time,
    }
    if value.initiator is not None:
        out["Initiator"] = to_builtins(value.initiator)
    if version < (1, 52) and value.type in ("container", "image"):
        out |= {"status": value.action, "id": value.actor}
        if value.type == "container":
            out["from"] = value.attributes.get("image", "")
    return out


def event_matches(value: Event, filters: dict[str, list[str]]) -> bool:
    """Docker's event filters: an event must match one value of every filter. Objects match by the beginning
    of their id or name."""
    attributes = value.attributes
    if "type" in filters and value.type not in filters["type"]:
        return False
    if "event" in filters:
        action = value.action.partition(":")[0]
        if value.action not in filters["event"] and action not in filters["event"]:
            return False
    if "scope" in filters and value.scope not in filters["scope"]:
        return False
    for wanted in filters.get("label", ()):
        key, equals, text = wanted.partition("=")
        if key not in attributes or (equals and attributes[key] != text):
            return False
    for kind in ("container", "image", "volume", "network", "daemon", "plugin"):
        wanted_names = filters.get(kind)
        if wanted_names is None:
            continue
        if kind == "image":
            names = {value.actor, attributes.get("name", ""), attributes.get("image", "")}
            names |= {n.rpartition(":")[0] for n in list(names) if ":" in n}
            if value.type not in ("image", "container") or not names & set(wanted_names):
                return False
            continue
        begins = tuple(wanted_names)
        if value.type != kind or not (
            value.actor.startswith(begins) or attributes.get("name", "").startswith(begins)
        ):
            return False
    return True
