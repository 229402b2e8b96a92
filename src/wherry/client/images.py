"""``/images``: archives and progress are streams."""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.api import filters, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api
    from wherry.client.http import Response

    Filters = Mapping[str, Iterable[str]]
    Object = dict[str, Any]


def path(image: str, action: str = "") -> str:
    return f"/images/{quote(image, keep='/:@')}" + (f"/{action}" if action else "")


def platform_json(platform: str) -> str | None:
    """``linux/arm64/v8`` as the JSON object that the API's ``platform`` keys take; None for none."""
    if not platform:
        return None
    names = ("os", "architecture", "variant")
    return jsonwire.dumps(dict(zip(names, platform.split("/", 2), strict=False)))


def listing(
    api: Api,
    *,
    all: bool = False,
    digests: bool = False,
    manifests: bool = False,
    shared_size: bool = False,
    given: Filters | None = None,
) -> list[Object]:
    query: dict[str, str | bool | None] = {
        "all": all,
        "digests": digests,
        "shared-size": shared_size,
        "manifests": manifests,
        "filters": filters(given or {}),
    }
    return api.json("GET", "/images/json", query=query) or []


def inspect(api: Api, image: str, *, platform: str = "", manifests: bool = False) -> Object:
    query: dict[str, str | bool | None] = {"platform": platform_json(platform), "manifests": manifests}
    answer: Object = api.json("GET", path(image, "json"), query=query)
    return answer


def history(api: Api, image: str, *, platform: str = "") -> list[Object]:
    return api.json("GET", path(image, "history"), query={"platform": platform_json(platform)}) or []


def versions(api: Api, name: str) -> list[Object]:
    """The targets that a name had, newest first (an addition of this engine)."""
    return api.json("GET", path(name, "versions")) or []


def rollback(api: Api, name: str, wanted: str) -> Object:
    """Point a name at an earlier version; answers ``{"Id": …, "From": …, "Version": …}``."""
    answer: Object = api.json("POST", path(name, "rollback"), query={"to": wanted})
    return answer


def compare(api: Api, before: str, after: str) -> Object:
    """The differences between two images (an addition of this engine)."""
    answer: Object = api.json("GET", path(before, "diff"), query={"to": after})
    return answer


def tag(api: Api, source: str, repository: str, tag_name: str) -> None:
    api.call("POST", path(source, "tag"), query={"repo": repository, "tag": tag_name})


def remove(
    api: Api, image: str, *, force: bool = False, no_prune: bool = False, platforms: Iterable[str] = ()
) -> list[Object]:
    """Untag or delete; answers ``[{"Untagged": …}, {"Deleted": …}]``."""
    chosen = [p for p in (platform_json(one) for one in platforms) if p]
    query: dict[str, bool | list[str]] = {"force": force, "noprune": no_prune, "platforms": chosen}
    return api.json("DELETE", path(image), query=query) or []


def prune(api: Api, given: Filters) -> Object:
    answer: Object = api.json("POST", "/images/prune", query={"filters": filters(given)})
    return answer


def save(api: Api, names: Iterable[str], *, platform: str = "") -> Response:
    """A tar archive of one or several images, as a stream."""
    return api.request("GET", "/images/get", query={"names": names, "platform": platform_json(platform)})


def load(api: Api, archive: Iterable[bytes], *, quiet: bool = False, platform: str = "") -> Response:
    """Send an archive; answers a progress stream when the content type is JSON, else plain text."""
    return api.request(
        "POST",
        "/images/load",
        query={"quiet": quiet, "platform": platform_json(platform)},
        data=archive,
        headers={"Content-Type": "application/x-tar"},
    )


def import_(
    api: Api,
    source: str,
    archive: Iterable[bytes] | None,
    *,
    repository: str = "",
    tag_name: str = "",
    message: str = "",
    changes: Iterable[str] = (),
    platform: str = "",
) -> Iterator[Object]:
    """Make an image of a root file system; ``source`` is ``-`` (with ``archive``) or a URL."""
    query = {
        "fromSrc": source,
        "repo": repository or None,
        "tag": tag_name or None,
        "message": message or None,
        "changes": changes,
        "platform": platform.lower() or None,
    }
    return _progress(api.request("POST", "/images/create", query=query, data=archive))


def pull(
    api: Api,
    repository: str,
    tag_name: str,
    *,
    platform: str = "",
    headers: Mapping[str, str] | None = None,
) -> Iterator[Object]:
    """Ask the daemon to fetch an image; a progress stream. ``headers`` contain credentials."""
    query = {"fromImage": repository, "tag": tag_name or None, "platform": platform.lower() or None}
    return _progress(api.request("POST", "/images/create", query=query, headers=headers))


def bootstrap(api: Api, name: str, *, mirror: str = "", variant: str = "") -> Iterator[Object]:
    """Make a base image from the distribution's packages (an addition to the Engine API)."""
    query = {"name": name, "mirror": mirror or None, "variant": variant or None}
    return _progress(api.request("POST", "/images/bootstrap", query=query))


def _progress(response: Response) -> Iterator[Object]:
    return jsonwire.messages(response)
