"""``/build``: sessions, contexts, builds, and the outputs of builds."""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.api import filters, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api
    from wherry.client.http import Response

    Object = dict[str, Any]
    Query = Mapping[str, Any]

_TAR = {"Content-Type": "application/x-tar"}


def open_session(
    api: Api, secrets: Mapping[str, bytes], agents: Mapping[str, str], dockerfile: bytes | None = None
) -> str:
    """Start a session (an addition of this engine) and return its id. :raises NotFound: the daemon is another
    engine."""
    import base64

    body: Object = {"Secrets": {key: base64.b64encode(value).decode() for key, value in secrets.items()}}
    body["Agents"] = dict(agents)
    if dockerfile is not None:
        body["Dockerfile"] = dockerfile.decode("utf-8", "replace")
    return str(api.json("POST", "/build/sessions", body=body)["Id"])


def close_session(api: Api, session: str) -> None:
    api.call("DELETE", f"/build/sessions/{quote(session)}")


def compare(api: Api, session: str, name: str, key: str, manifest: bytes) -> list[int] | None:
    """Send the list of a context's entries; returns which of them the daemon needs, ``None`` if nothing
    differs."""
    path = f"/build/sessions/{quote(session)}/context"
    response = api.request("POST", path, query={"name": name, "key": key}, data=manifest)
    answer = jsonwire.loads(response.read_all())
    return None if answer.get("Current") else [int(n) for n in answer.get("Need") or ()]


def send(api: Api, session: str, name: str, archive: Iterable[bytes]) -> None:
    path = f"/build/sessions/{quote(session)}/context"
    response = api.request("PUT", path, query={"name": name}, data=archive, headers=_TAR)
    response.read_all()


def build(
    api: Api, query: Query, *, archive: Iterable[bytes] | None, headers: Mapping[str, str]
) -> Iterator[Object]:
    """Build, with the context as an archive or from a session; a progress stream."""
    sent = {**headers, **(_TAR if archive is not None else {})}
    return jsonwire.messages(api.request("POST", "/build", query=query, data=archive, headers=sent))


def output(api: Api, build_id: str, number: int) -> Response:
    """An output of a build that just ended, as a tar stream."""
    return api.request("GET", f"/build/outputs/{quote(build_id)}", query={"number": number})


def prune(api: Api, given: Mapping[str, Iterable[str]], **query: Any) -> Object:
    names = {name.replace("_", "-"): value for name, value in query.items()}
    answer: Object = api.json("POST", "/build/prune", query={**names, "filters": filters(given)})
    return answer


def history(api: Api) -> list[Object]:
    return api.json("GET", "/build/history") or []


def history_of(api: Api, build_id: str) -> Object:
    answer: Object = api.json("GET", f"/build/history/{quote(build_id)}")
    return answer


def forget(api: Api, build_id: str) -> None:
    api.call("DELETE", f"/build/history/{quote(build_id)}")
