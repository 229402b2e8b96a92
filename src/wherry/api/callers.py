"""Identify the client: by the kernel's facts about a unix socket's peer, or by its certificate."""

from __future__ import annotations

import pwd
import socket
import struct
from functools import lru_cache

from aiohttp import web

from wherry.model.events import Initiator

_CREDENTIALS = struct.Struct("3i")
"""``struct ucred`` of unix(7): pid, uid, gid."""


def initiator(request: web.BaseRequest) -> Initiator:
    """The client of a request. Nothing in the request itself is trusted."""
    transport = request.transport
    if transport is None:
        return Initiator()
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(raw)
        # A process in another pid namespace has no pid in this one.
        return Initiator(user=_user(uid), uid=uid, pid=pid or None)
    peer = transport.get_extra_info("peername") or ("", 0)
    return Initiator(user=_common_name(transport.get_extra_info("peercert")), address=f"{peer[0]}:{peer[1]}")


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _common_name(certificate: object) -> str:
    """The subject's common name in ``ssl.SSLSocket.getpeercert``'s result;
    empty without a verified certificate."""
    if not isinstance(certificate, dict):
        return ""
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            if key == "commonName":
                return str(value)
    return ""
