"""``/volumes``."""

from __future__ import annotations

from wherry.client.api import filters, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api
    from wherry.client.http import Response

    Filters = Mapping[str, Iterable[str]]
    Object = dict[str, Any]
    Headers = Mapping[str, str]


def path(name: str, action: str = "") -> str:
    return f"/volumes/{quote(name)}" + (f"/{action}" if action else "")


def listing(api: Api, given: Filters | None = None) -> Object:
    """Answers ``{"Volumes": […], "Warnings": […]}``."""
    answer: Object = api.json("GET", "/volumes", query={"filters": filters(given or {})})
    return answer


def create(api: Api, body: Object) -> Object:
    answer: Object = api.json("POST", "/volumes/create", body=body)
    return answer


def inspect(api: Api, name: str) -> Object:
    answer: Object = api.json("GET", f"/volumes/{quote(name)}")
    return answer


def rename(api: Api, name: str, new: str) -> Object:
    answer: Object = api.json("POST", f"/volumes/{quote(name)}/rename", query={"name": new})
    return answer


def remove(api: Api, name: str, *, force: bool = False) -> None:
    api.call("DELETE", f"/volumes/{quote(name)}", query={"force": force})


def prune(api: Api, given: Filters) -> Object:
    answer: Object = api.json("POST", "/volumes/prune", query={"filters": filters(given)})
    return answer


# ---- beyond Docker's ---------------------------------------------------------------------------------------


def snapshots(api: Api, name: str) -> Object:
    """``{"Snapshots": [{"Name", "CreatedAt", "Origin", "Frozen"}], "Schedule": {…} or null}``."""
    answer: Object = api.json("GET", path(name, "snapshots"))
    return answer


def snapshot(api: Api, name: str, label: str, *, freeze: bool = False) -> Object:
    body = {"Name": label, "Freeze": freeze}
    answer: Object = api.json("POST", path(name, "snapshots"), body=body)
    return answer


def remove_snapshot(api: Api, name: str, label: str) -> None:
    api.call("DELETE", path(name, f"snapshots/{quote(label)}"))


def restore(api: Api, name: str, label: str) -> Object:
    """``{"Kept": …}``: the snapshot of the data before."""
    answer: Object = api.json("POST", path(name, f"snapshots/{quote(label)}/restore"))
    return answer


def clone(api: Api, name: str, new: str, *, snapshot: str = "", freeze: bool = False) -> Object:
    body = {"Name": new, "Snapshot": snapshot, "Freeze": freeze}
    answer: Object = api.json("POST", path(name, "clone"), body=body)
    return answer


def schedule(api: Api, name: str, *, every: int, keep: int, freeze: bool) -> Object:
    """``every`` in seconds, 0 for never again."""
    body = {"Every": every, "Keep": keep, "Freeze": freeze}
    answer: Object = api.json("POST", path(name, "schedule"), body=body)
    return answer


def changes(api: Api, name: str, before: str, now: str) -> list[Object]:
    query = {"from": before, "to": now}
    return api.json("GET", path(name, "changes"), query=query) or []


def sizes(api: Api, name: str, *, snapshot: str = "", depth: int = 1) -> list[Object]:
    query = {"snapshot": snapshot, "depth": str(depth)}
    return api.json("GET", path(name, "sizes"), query=query) or []


def export(api: Api, name: str, *, compression: str, snapshot: str = "") -> Response:
    """An archive of the volume's files, as a stream."""
    query = {"compression": compression, "snapshot": snapshot}
    return api.request("GET", path(name, "export"), query=query)


def push(api: Api, name: str, target: str, *, snapshot: str = "", headers: Headers) -> Iterator[Object]:
    """Send a volume to a registry; a progress stream."""
    from wherry.client import jsonwire

    query = {"to": target, "snapshot": snapshot}
    return jsonwire.messages(api.request("POST", path(name, "push"), query=query, headers=headers))


def pull(api: Api, source: str, name: str, *, headers: Headers) -> Iterator[Object]:
    """Make a volume from a pushed one; a progress stream."""
    from wherry.client import jsonwire

    query = {"from": source, "name": name}
    return jsonwire.messages(api.request("POST", "/volumes/pull", query=query, headers=headers))


def import_(api: Api, name: str, archive: Iterable[bytes], *, labels: Iterable[str], merge: bool) -> Object:
    """``labels`` as ``key=value``."""
    query: dict[str, list[str] | bool] = {"label": list(labels), "merge": merge}
    headers = {"Content-Type": "application/x-tar"}
    response = api.request("POST", path(name, "import"), query=query, data=archive, headers=headers)
    from wherry.client import jsonwire

    answer: Object = jsonwire.loads(response.read_all())
    return answer
