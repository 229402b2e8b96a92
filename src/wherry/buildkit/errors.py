"""Errors in BuildKit's words, with the details from which clients show the Dockerfile's lines."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from wherry.engine.builds.failures import ErrorLines, failed_command, place_of
from wherry.errors import WherryError
from wherry.rpc.status import Code, Detail, RpcError, told

_SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
_VERTEX = "github.com/moby/buildkit/errdefs.Vertex+json"
_SUBREQUEST = "github.com/moby/buildkit/errdefs.Subrequest+json"


_TOLD = {Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}


def words(error: BaseException) -> str:
    """The error text for the client."""
    failed = failed_command(error)
    if failed is not None:
        return f'process "{failed.command}" did not complete successfully: exit code: {failed.exit_code}'
    place = place_of(error)
    if place is not None:
        return place.reason
    return error.message if isinstance(error, WherryError) else str(error)


def failure(error: WherryError, vertex: str = "") -> RpcError:
    """The same error in gRPC's form. :param vertex: digest of the step that failed."""
    if isinstance(error, RpcError):
        return error
    details: list[Detail] = []
    place = place_of(error)
    if place is not None:
        details.append(_detail(_SOURCE, source(place)))
    if vertex:
        details.append(_detail(_VERTEX, {"digest": vertex}))
    # Clients print any other code before the text.
    code = told(error).code
    # Mistakes in a Dockerfile and commands that fail are the client's doing.
    expected = error.expected or code not in (Code.INTERNAL, Code.UNKNOWN)
    return RpcError(code if code in _TOLD else Code.UNKNOWN, words(error), details).as_expected(expected)


def unsupported_call(name: str) -> RpcError:
    """If a call is not supported, this detail makes clients fall back."""
    return RpcError(Code.UNIMPLEMENTED, f"unsupported request {name}", [_detail(_SUBREQUEST, {"name": name})])


def source(place: ErrorLines) -> dict[str, Any]:
    """``errdefs.Source``: the file and its lines."""
    return {
        "info": {
            "filename": place.name,
            "data": base64.b64encode(place.source.encode("utf-8", "surrogateescape")).decode(),
            "language": "Dockerfile",
        },
        "ranges": [{"start": {"line": place.location.first}, "end": {"line": place.location.last}}],
    }


def _detail(kind: str, value: dict[str, Any]) -> Detail:
    return Detail(kind, msgspec.json.encode(value))
