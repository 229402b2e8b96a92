"""``--security-opt``: the part that the client handles."""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.files import read_file
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Options = tuple[list[str], list[str] | None, list[str] | None]

PROFILE_SIZE_MAX = 4 << 20


def parse(options: Iterable[str]) -> Options:
    """The options for the daemon, and the masked and read-only paths if the options change them.

    A seccomp profile is read here and sent as JSON, since the daemon may be on another machine.

    :raises InvalidArgument: in Docker's words.
    """
    sent: list[str] = []
    masked: list[str] | None = None
    readonly: list[str] | None = None
    for option in options:
        if option == "systempaths=unconfined":
            masked, readonly = [], []
            continue
        sent.append(_one(option))
    return sent, masked, readonly


def _one(option: str) -> str:
    separator = "=" if "=" in option else ":"
    key, found, value = option.partition(separator)
    if not found and key != "no-new-privileges":
        raise InvalidArgument(f'Invalid --security-opt: "{option}"')
    if key != "seccomp" or value in ("unconfined", "builtin"):
        return option
    try:
        raw = read_file(value)
    except OSError as e:
        reason = (e.strerror or "").lower()
        raise InvalidArgument(f"opening seccomp profile ({value}) failed: open {value}: {reason}") from e
    try:
        if len(raw) > PROFILE_SIZE_MAX:
            raise ValueError("larger than 4 MiB")
        return f"seccomp={jsonwire.dumps(jsonwire.loads(raw), ascii_only=False)}"
    except ValueError as e:
        raise InvalidArgument(f"compacting json for seccomp profile ({value}) failed: {e}") from e
