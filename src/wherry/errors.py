"""The one tree of errors.

Every room raises from here; ``api/status.py`` alone knows which HTTP code each one becomes, and the
client turns the code back into the same class. The text is written for the person who reads it:
``cannot X: reason``, or Docker's own words where its clients match on them.
"""

from __future__ import annotations

from typing import Self


class WherryError(Exception):
    """Base of all errors that are answers rather than defects.

    ``expected`` marks one that is somebody else's doing (a registry's, the client's), whatever its code says.
    """

    expected = False

    def as_expected(self, expected: bool = True) -> Self:
        """This error, marked as somebody else's doing."""
        self.expected = expected
        return self

    @property
    def message(self) -> str:
        text = str(self.args[0]) if self.args else self.__class__.__name__
        if text.isascii():
            return text
        # A file's name may be in it with bytes that are no text, which no document can hold.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class InvalidArgument(WherryError):
    """The request cannot be carried out as written (HTTP 400)."""


class Unauthorized(WherryError):
    """Credentials are missing or wrong (HTTP 401)."""


class Forbidden(WherryError):
    """The request is understood and refused (HTTP 403)."""


class NotFound(WherryError):
    """No such object (HTTP 404)."""


class Conflict(WherryError):
    """The object's state does not allow this (HTTP 409)."""


class NotModified(WherryError):
    """The object already is as asked (HTTP 304, sent without a body)."""


class NotImplemented_(WherryError):
    """A known feature that is not there yet; the text names it (HTTP 501)."""


class Unavailable(WherryError):
    """Something this depends on is away or missing on this host (HTTP 503)."""


class Internal(WherryError):
    """A defect or a failed host operation (HTTP 500)."""
