"""Events: one thing that happened to one object."""

from __future__ import annotations

from dataclasses import dataclass, field

from wherry.model.base import Value


class Initiator(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Who made a request: a local process (``uid`` and ``pid`` from the kernel, unix(7)), or a client on the
    network (``address``). ``user`` is a user's name or the name in a TLS certificate."""

    user: str = ""
    uid: int | None = None
    pid: int | None = None
    address: str = ""


@dataclass(frozen=True)
class Event:
    """``time`` in nanoseconds since the epoch; ``type`` container, image, volume, network, daemon …

    ``initiator`` is who requested it; None if nobody did.
    """

    type: str
    action: str
    actor: str
    time: int
    attributes: dict[str, str] = field(default_factory=dict)
    scope: str = "local"
    initiator: Initiator | None = None
