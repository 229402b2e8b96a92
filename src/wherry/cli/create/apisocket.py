"""``--use-api-socket``: a container that can use the daemon's API, with the client's registry logins.

The daemon's socket is bound at :data:`SOCKET`. The ``auths`` of config.json, if there are any, are copied to
:data:`CONFIG` in the container, and its ``DOCKER_CONFIG`` is set to that path. If ``--env`` sets that
variable, the container is assumed to have its own logins. Logins in credential helpers are not copied.
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
    """Add the socket to a create request. :returns: the archive to extract at / in the container, or nothing.

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
