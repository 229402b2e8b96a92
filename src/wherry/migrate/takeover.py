"""A stopped Docker's images, volumes, networks and containers, taken over by the API alone.

A plan is made first, and is all that a dry run shows. What is there already under the same name is left as it
is, so a take-over that was broken off is simply begun again.
"""

from __future__ import annotations

import os
from functools import partial

from wherry.client import containers as container_api
from wherry.client import images as image_api
from wherry.client import jsonwire
from wherry.client import networks as network_api
from wherry.client import volumes as volume_api
from wherry.client.pack import Packer
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.migrate import definitions
from wherry.migrate.containerd import ContainerdStore
from wherry.migrate.definitions import ContainerPlan, LeftOut
from wherry.migrate.graph import DRIVER, GraphStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from wherry.client.api import Api
    from wherry.migrate.dockerroot import DockerRoot

    Object = dict[str, Any]
    Say = Callable[[str], None]

_SYSTEM_CONTAINERD = "/var/lib/containerd"


class PlannedItem:
    """One thing of the plan: what it is, its name, and why it is not taken, if it is not."""

    def __init__(self, kind: str, name: str, size: int = 0, skipped: str = "") -> None:
        self.kind, self.name, self.size, self.skipped = kind, name, size, skipped


class DockerTakeover:
    """Everything below a root that can be taken over. ``api`` is the daemon that gets it."""

    def __init__(self, root: DockerRoot, api: Api, say: Say, *, containerd: str = "") -> None:
        """:param say: is told what was done, a line for each thing.
        :param containerd: root of the containerd whose store is meant; without it where dockerd's lies.

        :raises InvalidArgument: the root cannot be read, or has images in a store that nobody can read."""
        self._root, self._api, self._say = root, api, say
        self._failed = 0
        self._there_now: dict[str, set[str]] = {}
        self.items: list[PlannedItem] = []
        self.plans = self._containers()
        self._store = self._image_store(containerd)
        wanted = {plan.image for plan in self.plans} | {plan.manifest for plan in self.plans if plan.manifest}
        self._images: list[Any] = self._store.images(wanted)
        self._networks = self._planned_networks()
        self._volumes = self._planned_volumes()
        self._describe()

    # ---- the plan ----------------------------------------------------------------------------------------

    def _image_store(self, containerd: str) -> GraphStore | ContainerdStore:
        for root in (
            (containerd,) if containerd else (self._root.within("containerd", "daemon"), _SYSTEM_CONTAINERD)
        ):
            store = ContainerdStore(root)
            if store.present:
                return store
        if containerd:
            raise InvalidArgument(f"{containerd} has no images of dockerd")
        graph = GraphStore(self._root)
        kept = self._root.within("image")
        others = [name for name in sorted(os.listdir(kept)) if name != DRIVER] if os.path.isdir(kept) else []
        if others and not graph.present:
            raise InvalidArgument(
                f"the images are kept by the storage driver {others[0]}; only {DRIVER} can be read"
            )
        return graph

    def _containers(self) -> list[ContainerPlan]:
        plans = []
        for stored in self._root.containers():
            name = str(stored["config"]["Name"]).lstrip("/")
            try:
                plans.append(ContainerPlan(stored))
            except LeftOut as e:
                self.items.append(PlannedItem("container", name, skipped=str(e)))
        self._names = {plan.id: plan.name for plan in plans}
        for plan in plans:
            plan.look(self._names)
        return definitions.in_order(plans)

    def _planned_networks(self) -> list[Object]:
        bodies = []
        for stored in self._root.networks():
            try:
                bodies.append(definitions.network(stored))
            except LeftOut as e:
                if stored.get("name") not in definitions.PREDEFINED:
                    self.items.append(PlannedItem("network", str(stored.get("name")), skipped=str(e)))
        return bodies

    def _planned_volumes(self) -> list[Object]:
        return self._root.volumes()

    def _describe(self) -> None:
        there = self._there()
        for image in self._images:
            for name in image.names or [image.extra_name]:
                self.items.append(PlannedItem("image", name))
        for kind, found in (("network", self._networks), ("volume", self._volumes)):
            for each in found:
                skipped = "it is there already" if each["Name"] in there[kind] else ""
                size = _size(each["Data"]) if kind == "volume" and definitions.has_own_files(each) else 0
                self.items.append(PlannedItem(kind, each["Name"], size, skipped))
        for plan in self.plans:
            skipped = "it is there already" if plan.name in there["container"] else ""
            self.items.append(PlannedItem("container", plan.name, skipped=skipped))

    def _there(self) -> dict[str, set[str]]:
        listed = container_api.listing(self._api, all=True)
        return {
            "network": {each["Name"] for each in network_api.listing(self._api)},
            "volume": {each["Name"] for each in volume_api.listing(self._api).get("Volumes") or ()},
            "container": {name.lstrip("/") for each in listed for name in each.get("Names") or ()},
        }

    @property
    def image_size(self) -> int:
        """Bytes that the images' layers are."""
        return self._store.size(self._images)

    # ---- carrying it out ---------------------------------------------------------------------------------

    def run(self, *, start: bool) -> int:
        """Take everything over; how many things could not be.

        :param start: also start what dockerd would start by itself."""
        self._there_now = self._there()
        if self._images:
            self._attempt("images", f"{len(self._images)}", self._load)
        for body in self._networks:
            self._made("network", body["Name"], partial(network_api.create, self._api, body))
        for stored in self._volumes:
            self._made("volume", stored["Name"], partial(self._volume, stored))
        for plan in self.plans:
            self._made("container", plan.name, partial(self._container, plan))
        if start:
            for plan in self.plans:
                if plan.comes_back:
                    self._attempt("start", plan.name, partial(container_api.start, self._api, plan.name))
        return self._failed

    def _made(self, kind: str, name: str, work: Callable[[], object]) -> None:
        if name in self._there_now[kind]:
            self._say(f"{kind} {name}: is there already")
        else:
            self._attempt(kind, name, work)

    def _attempt(self, kind: str, name: str, work: Callable[[], object]) -> None:
        """One failure does not end the rest: what can be taken over is."""
        try:
            work()
        except (WherryError, OSError) as e:
            self._failed += 1
            self._say(f"{kind} {name}: FAILED: {e}")
        else:
            self._say(f"{kind} {name}: done")

    def _load(self) -> None:
        store: Any = self._store
        response = image_api.load(self._api, store.archive(self._images))
        for message in jsonwire.messages(response):
            if isinstance(message, dict) and message.get("error"):
                raise InvalidArgument(str(message["error"]))

    def _volume(self, stored: Object) -> None:
        body = definitions.volume(stored)
        if not definitions.has_own_files(stored):
            volume_api.create(self._api, body)
            return
        labels = [f"{key}={value}" for key, value in body["Labels"].items()]
        archive: Iterator[bytes] = iter(Packer(stored["Data"], ".", follow=False, whole=True))
        volume_api.import_(self._api, body["Name"], archive, labels=labels, merge=False)

    def _container(self, plan: ContainerPlan) -> None:
        body = plan.body(self._names, self._image_of(plan))
        answer = container_api.create(self._api, body, name=plan.name)
        for warning in answer.get("Warnings") or ():
            self._say(f"container {plan.name}: {warning}")

    def _image_of(self, plan: ContainerPlan) -> str:
        """The name that the container was made from, if it still means the same image; else another of it.

        :raises NotFound: dockerd does not have the image any more."""
        for image in self._images:
            if image.id in (plan.image, plan.manifest):
                names = image.names or [image.extra_name]
                return plan.image_name if _familiar(plan.image_name) in map(_familiar, names) else names[0]
        raise NotFound(f"its image {plan.image} is not there any more")


def _familiar(name: str) -> str:
    """``docker.io/library/app:1`` as ``app:1``, with the tag that is meant."""
    short = name.removeprefix("docker.io/").removeprefix("library/")
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


def _size(directory: str) -> int:
    """Bytes of all files below, as far as they can be read."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total
