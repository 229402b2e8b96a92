"""Names and ids of new containers."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable

from wherry.errors import InvalidArgument

_ALLOWED = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_LEFT = """
able airy amber ample apt azure balmy bold brave breezy brisk bright calm candid cheery clear clever coastal
cosy daring deft eager early easy fair famous fleet fond frank free fresh gallant gentle glad golden good
grand hardy hearty honest jaunty jolly keen kind lively loyal lucid lucky mellow merry mild neat nimble noble
patient placid plucky polite prime proud quick quiet ready rosy sage salty serene sharp silver snug sound
spry stately steady still sturdy sunny sure swift tidal tidy tranquil trim true upbeat valiant vivid warm
wise witty worthy zesty
""".split()
_RIGHT = """
anchor bargee barque beacon bosun bow breakwater brig buoy canal captain cargo chart clipper coble compass
corvette coxswain creek current cutter davit deck delta dinghy dock dory estuary fathom felucca ferry fjord
flag galley gig gull halyard harbour haven hawser heron hull inlet islet jetty junk keel ketch kite knot
lagoon lateen ledger lighter lock lugger mariner mast mizzen mole mooring narrows oar otter packet pier
pilot pinnace port prow punt purser quay raft reef rigging river rudder sail schooner sculler seal sextant
shoal skiff skipper sloop sound spar stern strait swan tern tide tiller tug voyage wharf whistle windlass
yawl
""".split()


def new_id() -> str:
    """64 hex digits. The first twelve are never all decimal: a short id must not look like a number."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdigit():
            return candidate


def is_id(text: str) -> bool:
    """Whether it has the form of a full container id; the container need not exist."""
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def check_name(name: str) -> str:
    """Return the name without its leading slash. :raises InvalidArgument: with Docker's message."""
    bare = name.removeprefix("/")
    if not _ALLOWED.fullmatch(bare):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def random_name(taken: Callable[[str], bool]) -> str:
    """Two words that no container uses as its name; a number is appended if too many are taken."""
    for attempt in range(1_000):
        name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
        if attempt >= 5:
            name += str(secrets.randbelow(10 ** min(attempt, 9)))
        if not taken(name):
            return name
    raise InvalidArgument("cannot find a free container name")


def new_engine_id() -> str:
    """A random identity of one root, as a UUID (RFC 9562)."""
    return str(uuid.uuid4())
