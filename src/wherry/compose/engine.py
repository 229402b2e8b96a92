"""What only wherry's daemon can do."""

from __future__ import annotations

from wherry.client import system
from wherry.compose.places import ComposeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.client.api import Api


def require_wherry(api: Api, what: str) -> None:
    """:raises ComposeError: the daemon is another; ``what`` says what needs wherry's."""
    name = (system.version(api).get("Platform") or {}).get("Name") or "another"
    if name != "wherry":
        raise ComposeError(f"{what} needs wherry's daemon; this one is {name}")
