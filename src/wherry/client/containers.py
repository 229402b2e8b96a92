"""``/containers``: every function takes the session first and the container's name or ID second."""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.api import filters, quote
from wherry.errors import Internal, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api, Hijacked
    from wherry.client.http import Response

    Filters = Mapping[str, Iterable[str]]
    Object = dict[str, Any]


def path(container: str, action: str = "") -> str:
    return f"/containers/{quote(container)}" + (f"/{action}" if action else "")


def listing(
    api: Api, *, all: bool = False, limit: int = 0, size: bool = False, given: Filters | None = None
) -> list[Object]:
    query = {"all": all, "limit": limit if limit > 0 else None, "size": size, "filters": filters(given or {})}
    return api.json("GET", "/containers/json", query=query) or []


def create(api: Api, body: Object, *, name: str = "", platform: str = "") -> Object:
    """Create a container; answers ``{"Id": …, "Warnings": […]}``."""
    query = {"name": name or None, "platform": platform or None}
    answer: Object = api.json("POST", "/containers/create", query=query, body=body)
    return answer


def inspect(api: Api, container: str, *, size: bool = False) -> Object:
    answer: Object = api.json("GET", path(container, "json"), query={"size": size})
    return answer


def start(api: Api, container: str, *, detach_keys: str = "") -> None:
    api.call("POST", path(container, "start"), query={"detachKeys": detach_keys or None})


def start_in_standby(api: Api, container: str) -> None:
    """Start it without its published ports, aliases and host name, until :func:`take_over` (wherry's own)."""
    api.call("POST", path(container, "start"), query={"standby": True})


def take_over(api: Api, container: str, giver: str = "", *, drain: int = 0) -> int:
    """Give a container in standby its ports and names, and take them from ``giver``.

    :param drain: seconds to wait for the giver's connections to end.

    :returns: how many of these are left. :raises NotFound: also from a daemon that cannot do it.
    """
    query = {"from": giver or None, "drain": drain or None}
    answer = api.json("POST", path(container, "takeover"), query=query)
    return int(answer["Connections"])


def stop(api: Api, container: str, *, signal: str = "", timeout: int | None = None) -> None:
    """``timeout`` in seconds; None leaves it to the container's own setting."""
    api.call("POST", path(container, "stop"), query={"signal": signal or None, "t": timeout})


def restart(api: Api, container: str, *, signal: str = "", timeout: int | None = None) -> None:
    api.call("POST", path(container, "restart"), query={"signal": signal or None, "t": timeout})


def kill(api: Api, container: str, signal: str = "") -> None:
    api.call("POST", path(container, "kill"), query={"signal": signal or None})


def pause(api: Api, container: str) -> None:
    api.call("POST", path(container, "pause"))


def unpause(api: Api, container: str) -> None:
    api.call("POST", path(container, "unpause"))


def update(api: Api, container: str, body: Object) -> Object:
    """Change limits and more; answers ``{"Warnings": […]}``."""
    answer: Object = api.json("POST", path(container, "update"), body=body) or {}
    return answer


def rename(api: Api, container: str, name: str) -> None:
    api.call("POST", path(container, "rename"), query={"name": name})


def remove(
    api: Api, container: str, *, force: bool = False, volumes: bool = False, link: bool = False
) -> None:
    api.call("DELETE", path(container), query={"force": force, "v": volumes, "link": link})


def resize(api: Api, container: str, height: int, width: int) -> None:
    api.call("POST", path(container, "resize"), query={"h": height, "w": width})


def top(api: Api, container: str, ps_args: str = "") -> Object:
    answer: Object = api.json("GET", path(container, "top"), query={"ps_args": ps_args or None})
    return answer


def all_stats(api: Api, *, stopped: bool = False, stream: bool = True) -> Iterator[list[Object]]:
    """The resource usage of all containers, one list each second. A daemon without wherry's endpoint is asked
    for each container.

    ``stopped`` includes containers that do not run.

    :raises ValueError: while iterating, if the answer is not JSON.
    """
    query = {"all": stopped, "stream": "1" if stream else "0"}
    try:
        return jsonwire.messages(api.request("GET", "/containers/stats", query=query))
    except NotFound:
        return one_by_one(api, stopped=stopped, stream=stream)


def one_by_one(api: Api, *, stopped: bool = False, stream: bool = True) -> Iterator[list[Object]]:
    """As :func:`all_stats`, with the endpoint that every Docker daemon has.

    It answers at once (``one-shot``), so rates come from the previous reading.
    """
    from time import sleep

    before: dict[str, Object] = {}
    while True:
        found, seen = [], before
        before = {}
        for container in listing(api, all=stopped):
            identifier = str(container.get("Id"))
            try:
                reading: Object = api.json(
                    "GET", path(identifier, "stats"), query={"stream": "0", "one-shot": True}
                )
            except NotFound:
                continue  # It was removed meanwhile.
            before[identifier] = reading.get("cpu_stats") or {}
            if identifier in seen:
                found.append(reading | {"precpu_stats": seen[identifier]})
        if seen or not before:
            yield found
            if not stream:
                return
        sleep(1)


def wait(api: Api, container: str, condition: str = "") -> Response:
    """Start waiting: returns once the daemon is watching; the body, ``{"StatusCode": …}``, comes at the exit.

    ``condition`` is ``not-running`` (the daemon's default), ``next-exit`` or ``removed``.
    """
    return api.request("POST", path(container, "wait"), query={"condition": condition or None})


def exit_status(body: bytes) -> tuple[int, str]:
    """The exit code and error text of a finished wait."""
    try:
        answer = jsonwire.loads(body)
        problem = answer.get("Error") or {}
        return int(answer["StatusCode"]), str(problem.get("Message") or "")
    except (ValueError, KeyError, AttributeError, TypeError) as e:
        raise Internal("cannot read the exit status: the daemon closed the connection") from e


def attach(
    api: Api,
    container: str,
    *,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    logs: bool = False,
    detach_keys: str = "",
) -> Hijacked:
    query = {
        "stream": True,
        "stdin": stdin,
        "stdout": stdout,
        "stderr": stderr,
        "logs": logs,
        "detachKeys": detach_keys or None,
    }
    return api.hijack("POST", path(container, "attach"), query=query)


def logs(
    api: Api,
    container: str,
    *,
    follow: bool = False,
    since: str = "",
    until: str = "",
    tail: str = "",
    timestamps: bool = False,
    details: bool = False,
) -> Response:
    """``since`` and ``until`` are ``seconds.nanoseconds`` since the epoch; ``tail`` a number or ``all``."""
    query = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "since": since or None,
        "until": until or None,
        "tail": tail or None,
        "timestamps": timestamps,
        "details": details,
    }
    return api.request("GET", path(container, "logs"), query=query)


def prune(api: Api, given: Filters) -> Object:
    answer: Object = api.json("POST", "/containers/prune", query={"filters": filters(given)})
    return answer


def export(api: Api, container: str) -> Response:
    """A tar archive of the whole file system, as a stream."""
    return api.request("GET", path(container, "export"))


def changes(api: Api, container: str) -> list[Object]:
    """``[{"Path": …, "Kind": 0 (changed), 1 (added) or 2 (deleted)}]``."""
    return api.json("GET", path(container, "changes")) or []


def commit(
    api: Api,
    container: str,
    *,
    repository: str = "",
    tag: str = "",
    comment: str = "",
    author: str = "",
    pause: bool = True,
    changes: Iterable[str] = (),
) -> str:
    """Make an image; its ID."""
    query = {
        "container": container,
        "repo": repository or None,
        "tag": tag or None,
        "comment": comment or None,
        "author": author or None,
        "pause": "1" if pause else "0",
        "changes": changes,
    }
    answer: Object = api.json("POST", "/commit", query=query)
    return str(answer.get("Id", ""))
