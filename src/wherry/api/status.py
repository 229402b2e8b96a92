"""Errors as HTTP: the only place that knows both."""

from __future__ import annotations

from wherry import errors

_CODES: tuple[tuple[type[errors.WherryError], int], ...] = (
    (errors.InvalidArgument, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.NotModified, 304),
    (errors.NotImplemented_, 501),
    (errors.Unavailable, 503),
)


def code_of(error: errors.WherryError) -> int:
    """The HTTP status for an error; 500 for what is nobody's fault but ours."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return 500
