"""Errors of registries and of connections to them: one type, with the distribution spec's codes.

A :class:`RegistryError` names the registry and the reason. :func:`explain` adds the reference and turns it
into an error of the API, in Docker's words where its clients match them.
"""

from __future__ import annotations

from wherry.errors import (
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    NotImplemented_,
    Unauthorized,
    Unavailable,
    WherryError,
)
from wherry.model.reference import Reference

# The codes of the distribution spec ("Error Codes"), and four of our own for failures that have no code
# there.
DENIED = "DENIED"
UNAUTHORIZED = "UNAUTHORIZED"
NAME_UNKNOWN = "NAME_UNKNOWN"
MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
BLOB_UNKNOWN = "BLOB_UNKNOWN"
TOO_MANY = "TOOMANYREQUESTS"
UNSUPPORTED = "UNSUPPORTED"
UNREACHABLE = "unreachable"
"""No connection, or it broke off, or it was too slow."""
REFUSED = "refused"
"""Ours: the registry's answer violates the specification or our limits."""
BLOCKED = "blocked"
"""Ours: the daemon's configuration blocks this registry."""
BROKEN = "broken"
"""Ours: the registry failed (HTTP 5xx), or its answer is not in any specification."""

_TEXT_MAX = 300
_READS = ("pull", "inspect")


class RegistryError(WherryError):
    """``host`` is the registry, ``status`` the HTTP status (0 for none), ``reason`` a clause.

    :ivar retry_after: seconds that the registry asks to wait; None if it does not say.
    """

    def __init__(
        self,
        host: str,
        code: str,
        reason: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        self.host, self.code, self.status, self.retry_after = host, code, status, retry_after
        self.reason = clean(reason)
        super().__init__(f"registry {host}: {self.reason}")

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed if it is repeated."""
        return self.code in (UNREACHABLE, TOO_MANY) or self.status in (408, 500, 502, 503, 504)

    @property
    def words(self) -> str:
        """The error as Docker prints it: ``manifest unknown: manifest unknown``."""
        return f"{self.code.lower().replace('_', ' ')}: {self.reason}" if self.code.isupper() else self.reason


def clean(text: str) -> str:
    """Foreign text, shortened to one line and without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _TEXT_MAX else line[:_TEXT_MAX] + "…"


def explain(error: RegistryError, reference: Reference, *, action: str = "pull") -> WherryError:
    """The error for the API's answer; it names the registry, the reference and the reason."""
    return _explained(error, reference, action).as_expected()


def _explained(error: RegistryError, reference: Reference, action: str) -> WherryError:
    name, shown, words = reference.familiar_name, reference.familiar(), error.words
    if error.code == MANIFEST_UNKNOWN and action in _READS:
        return NotFound(f"manifest for {shown} not found: {words}")
    if error.code == NAME_UNKNOWN and action in _READS:
        return NotFound(f"repository {name} not found: {words}")
    if error.code == DENIED and action in _READS:
        text = f"pull access denied for {name}, repository does not exist or may require 'docker login'"
        return NotFound(f"{text}: {words}")
    if error.code in (DENIED, UNAUTHORIZED):
        # If a pull or push is answered with 401, docker's client asks for a password, even in scripts.
        asks = action not in ("pull", "push")
        kind = Forbidden if error.code == DENIED else Unauthorized if asks else Internal
        return kind(f"{words} (registry {error.host}, cannot {action} {shown})")
    if error.code == TOO_MANY:
        return Unavailable(f"{words} (registry {error.host}, cannot {action} {shown})")
    text = f"cannot {action} {shown}: registry {error.host}: {words}"
    if error.code == BLOCKED:
        return Forbidden(text)
    if error.code in (MANIFEST_UNKNOWN, NAME_UNKNOWN, BLOB_UNKNOWN):
        return NotFound(text)
    if error.code == UNSUPPORTED:
        return NotImplemented_(text)
    if error.code == UNREACHABLE:
        return Unavailable(text)
    if error.code == REFUSED or 400 <= error.status < 500:
        return InvalidArgument(text)
    return Internal(text)
