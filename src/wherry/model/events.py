"""One thing that happened to one object."""

from __future__ import annotations

from dataclasses import dataclass, field

from wherry.model.base import Value


class Initiator(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Who asked for something: a local process (``uid`` and ``pid`` as the kernel says, unix(7)), or a
    client on the network (``address``). ``user`` is a user's name or the name in a TLS certificate."""

    user: str = ""
    uid: int | None = None
    pid: int | None = None
    address: str = ""


@dataclass(frozen=True)
class Event:
    """``time`` in nanoseconds since the epoch; ``type`` container, image, volume, network, daemon …

    ``initiator`` is who asked for it, None for what happened by itself.
    """

    type: str
    action: str
    actor: str
    time: int
    attributes: dict[str, str] = field(default_factory=dict)
    scope: str = "local"
    initiator: Initiator | None = None
