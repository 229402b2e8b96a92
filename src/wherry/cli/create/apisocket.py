"""``--use-api-socket``: a container that may speak to the daemon, with the client's registry logins.

The daemon's socket is bound at :data:`SOCKET`. The ``auths`` of config.json, where there are any, are put at
:data:`CONFIG` of the created container, whose ``DOCKER_CONFIG`` says so; one that is set with ``--env`` is
taken to mean that the container has logins of its own. What credential helpers keep is not handed on.
"""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context

    Object = dict[str, Any]

SOCKET = "/var/run/docker.sock"
DIRECTORY = "/run/secrets/docker"
CONFIG = f"{DIRECTORY}/config.json"
VARIABLE = "DOCKER_CONFIG"


def add(ctx: Context, body: Object) -> bytes:
    """Add the socket to a create request; the archive to extract at / of the container, empty for none.

    :raises InvalidArgument: the daemon is not reached through a socket of this machine, in Docker's words.
    """
    endpoint = ctx.find_endpoint()[0]
    if endpoint.scheme != "unix":
        raise InvalidArgument(
            "flag --use-api-socket can only be used with unix sockets: "
            f"docker endpoint {endpoint.host} incompatible"
        )
    mount = {"Type": "bind", "Source": endpoint.address, "Target": SOCKET, "BindOptions": {}}
    host = body["HostConfig"]
    host["Mounts"] = [*(host.get("Mounts") or []), mount]
    if any(variable.partition("=")[0] == VARIABLE for variable in body["Env"]):
        return b""
    if ctx.config.get("credsStore") or ctx.config.get("credHelpers"):
        ctx.complain("wherry: logins that credential helpers keep are not handed to the container")
    auths = ctx.config.get("auths")
    logins = {name: auth for name, auth in auths.items() if auth} if isinstance(auths, dict) else {}
    if not logins:
        return b""
    body["Env"] = [*body["Env"], f"{VARIABLE}={DIRECTORY}"]
    return _archive(logins)


def _archive(logins: Object) -> bytes:
    from io import BytesIO
    from tarfile import TarFile, TarInfo

    from wherry.client import jsonwire

    content = jsonwire.indented({"auths": logins}, "\t").encode()
    out = BytesIO()
    with TarFile(fileobj=out, mode="w") as archive:
        member = TarInfo(CONFIG.lstrip("/"))
        member.size, member.mode = len(content), 0o600
        archive.addfile(member, BytesIO(content))
    return out.getvalue()
