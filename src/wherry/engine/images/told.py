"""Events about images, with the labels of the image (API "Monitor events")."""

from __future__ import annotations

from wherry.engine.events import EventBus
from wherry.images.store import ImageStore
from wherry.model.digest import Digest


class ImageEvents:
    """Publishes from the loop's thread."""

    def __init__(self, events: EventBus, images: ImageStore) -> None:
        self._events, self._images = events, images

    def publish(self, action: str, image: Digest, name: str, *, actor: str = "", **more: str) -> None:
        """:param actor: the actor's id, for events where Docker does not use the image's id."""
        attributes = {**self._images.labels(image), "name": name, **more}
        self._events.publish("image", action, actor or image, attributes)
