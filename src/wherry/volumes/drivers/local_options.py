"""The options of the ``local`` driver: what to mount on a volume's directory, as mount(8) takes it.

``type`` a file system, ``device`` its source, ``o`` its options (docs.docker.com/reference/cli/docker/volume/
create, "Driver-specific options"). ``type=none,o=bind`` is a directory of this host.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument, Unavailable
from wherry.model.mount import Mount

_KNOWN = ("type", "o", "device", "size")
_NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "smbfs")


def check(options: Mapping[str, str]) -> None:
    """:raises InvalidArgument: an unknown option, or one that needs others.
    :raises Unavailable: ``size``, because there are no project quotas."""
    for option in options:
        if option not in _KNOWN:
            raise InvalidArgument(f'invalid option: "{option[:64]}"')
    if "size" in options:
        raise Unavailable(
            'cannot use option "size" of the local volume driver: quota size requested but no quota support'
        )
    for option, needed in (("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")):
        if option in options and not options.get(needed):
            raise InvalidArgument(f'missing required option: "{needed}"')
    words = _words(options)
    if any("\0" in value or "\n" in value for value in options.values()):
        raise InvalidArgument("invalid option: a value holds a control character")
    if ("bind" in words or "rbind" in words) and not os.path.isabs(options["device"]):
        raise InvalidArgument(
            f'invalid option: device "{options["device"]}" of a bind is not an absolute path'
        )


def mount_of(options: Mapping[str, str]) -> Mount | None:
    """What to mount; None for a volume that is a plain directory.

    Server names are resolved, because the kernel accepts only addresses. May block on the resolver.
    :raises InvalidArgument: no such host.
    """
    if not options.get("device"):
        return None
    kind, device, words = options["type"], options["device"], _words(options)
    if "bind" in words or "rbind" in words:
        return Mount("bind", device, tuple(words))
    if kind in _NETWORKED:
        words = [_with_address(word) for word in words]
        if kind not in ("nfs", "nfs4") and not any(w.startswith("addr=") for w in words):
            host = urlsplit(f"smb:{device}").hostname
            words += [f"addr={_address(host)}"] if host else []
    return Mount(kind, device, tuple(words))


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for word in options.get("o", "").split(",") if word and word != "defaults"]


def _with_address(word: str) -> str:
    key, equals, host = word.partition("=")
    return f"{key}={_address(host)}" if key == "addr" and equals else word


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as e:
        raise InvalidArgument(f"error resolving passed in network volume address: {host}: {e}") from e
