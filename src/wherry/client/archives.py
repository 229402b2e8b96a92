"""Archives of parts of containers and volumes: ``…/archive`` below either's address."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from wherry.client.api import Api
    from wherry.client.http import Response

    Object = dict[str, Any]


def stat_path(api: Api, base: str, where: str) -> Object:
    """The status of a path: ``name``, ``size``, ``mode`` (bits of Go's FileMode), ``mtime``,
    ``linkTarget``."""
    response = api.request("HEAD", f"{base}/archive", query={"path": where})
    response.read_all()
    return _path_stat(response)


def get(api: Api, base: str, where: str) -> tuple[Response, Object]:
    """A tar archive of a path, as a stream, and the status of the path."""
    response = api.request("GET", f"{base}/archive", query={"path": where})
    return response, _path_stat(response)


def put(api: Api, base: str, where: str, archive: Iterable[bytes], *, copy_uid_gid: bool = False) -> None:
    """Extract an archive in the directory ``where``, no directory is replaced by another kind of file."""
    query: dict[str, str | bool] = {
        "path": where,
        "noOverwriteDirNonDir": True,
        "copyUIDGID": copy_uid_gid,
    }
    headers = {"Content-Type": "application/x-tar"}
    api.request("PUT", f"{base}/archive", query=query, data=archive, headers=headers).read_all()


def _path_stat(response: Response) -> Object:
    from binascii import Error, a2b_base64

    from wherry.client import jsonwire
    from wherry.errors import Internal

    try:
        stat = jsonwire.loads(a2b_base64(response.headers.get("x-docker-container-path-stat", "")))
    except (Error, ValueError) as e:
        raise Internal("cannot read the daemon's answer: malformed path stat") from e
    if not isinstance(stat, dict):
        raise Internal("cannot read the daemon's answer: malformed path stat")
    return stat
