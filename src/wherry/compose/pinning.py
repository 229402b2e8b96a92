"""Images by digest, for ``config --resolve-image-digests`` and the history."""

from __future__ import annotations

from wherry.client import credentials
from wherry.client.api import quote
from wherry.errors import NotFound
from wherry.model import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.client.api import Api


def pinned(api: Api, config_dir: str, service: Any) -> str:
    """The image with its digest, which the daemon asks the registry for; empty for a service without an
    image.

    :raises NotFound: the registry does not have it.
    """
    image = service.get("image")
    if not image:
        return ""
    wanted = reference.parse(image).with_default_tag()
    if wanted.digest:
        return str(image)
    response = api.request(
        "GET",
        f"/distribution/{quote(image, keep='/:@')}/json",
        headers=credentials.header_for(config_dir, image),
    )
    from wherry.client import jsonwire

    answer = jsonwire.loads(response.read_all())
    digest = (answer.get("Descriptor") or {}).get("digest")
    if not digest:
        raise NotFound(f"no digest is known for {image}")
    return f"{wanted.familiar()}@{digest}"
