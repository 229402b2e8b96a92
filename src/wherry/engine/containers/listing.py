"""``GET /containers/json``: which containers are listed, by Docker's filters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wherry.engine.containers.service import ContainerService
from wherry.errors import InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model import patterns
from wherry.model.digest import Digest
from wherry.model.ports import check_port
from wherry.model.views import ContainerView
from wherry.state.containers import ContainerRow

STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


@dataclass(frozen=True)
class ListOptions:
    """``filters`` as decoded from the request, names already checked; ``limit`` 0 is no limit."""

    all: bool = False
    limit: int = 0
    size: bool = False
    tasks: bool = False
    """Only containers of a swarm's services."""
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ListingService:
    def __init__(self, *, containers: ContainerService, images: ImageStore) -> None:
        self._containers = containers
        self._images = images

    async def listed(self, options: ListOptions) -> list[ContainerView]:
        """Newest first; with sizes if ``options`` ask for them.

        :raises InvalidArgument: a filter has an invalid value.
        """
        views = self._select(options)
        return await self._containers.measured(views) if options.size else views

    def _select(self, options: ListOptions) -> list[ContainerView]:
        filters = options.filters
        rows = self._containers.all()
        _check(filters)
        show_all = options.all or options.limit > 0 or "status" in filters
        rows = self._by_time(rows, filters)
        if options.tasks:
            rows = []  # they are a swarm's, which this engine is in none of
        if not show_all:
            rows = [r for r in rows if r.state.status in ("running", "paused", "restarting")]
        ancestors = self._ancestors(filters.get("ancestor", ()))
        named = patterns.Anywhere(filters.get("name", ()))
        rows = [r for r in rows if named(f"/{r.name}", r.name) and _row_matches(r, filters, ancestors)]
        views = []
        targets: dict[str, Digest | None] = {}
        sandboxes = self._containers.sandboxes()
        for row in rows:
            view = self._containers.view(
                row, sandboxes.get(row.id), image_name=self._image_name(row, targets)
            )
            if _view_matches(view, filters):
                views.append(view)
                if options.limit and len(views) >= options.limit:
                    break
        return views

    def _image_name(self, row: ContainerRow, targets: dict[str, Digest | None]) -> str:
        """The name it was made from, or the image's id if that name points to another image now.

        :param targets: the targets of names, looked up once per list.
        """
        name = row.record.image_ref
        if name not in targets:
            try:
                targets[name] = self._images.find(name).digest
            except (NotFound, InvalidArgument):
                targets[name] = None
        target = targets[name]
        if target is None:
            return name if name.startswith("sha256:") else row.record.image_id
        return name if target == row.record.image_id else row.record.image_id

    def _by_time(
        self, rows: Sequence[ContainerRow], filters: Mapping[str, Sequence[str]]
    ) -> list[ContainerRow]:
        kept = list(rows)
        for wanted in filters.get("before", ()):
            limit = self._containers.find(wanted).record.created
            kept = [r for r in kept if r.record.created < limit]
        for wanted in filters.get("since", ()):
            limit = self._containers.find(wanted).record.created
            kept = [r for r in kept if r.record.created > limit]
        return kept

    def _ancestors(self, wanted: Sequence[str]) -> set[Digest] | None:
        if not wanted:
            return None
        found = set()
        for text in wanted:
            try:
                found.add(self._images.find(text).digest)
            except (NotFound, InvalidArgument):
                continue
        return found


def _check(filters: Mapping[str, Sequence[str]]) -> None:
    for value in filters.get("status", ()):
        if value not in STATUSES:
            known = ", ".join(STATUSES)
            raise InvalidArgument(
                f"invalid filter 'status={value}': invalid value for state ({value}): must be one of {known}"
            )
    for value in filters.get("exited", ()):
        if not re.fullmatch(r"[+-]?[0-9]+", value):
            raise InvalidArgument(
                f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            )
    for value in filters.get("health", ()):
        if value not in ("starting", "healthy", "unhealthy", "none"):
            raise InvalidArgument(
                f"invalid filter 'health={value}': invalid value for health ({value}): "
                "must be one of none, starting, healthy, unhealthy"
            )
    _ports([*filters.get("publish", ()), *filters.get("expose", ())])


def _row_matches(
    row: ContainerRow, filters: Mapping[str, Sequence[str]], ancestors: set[Digest] | None
) -> bool:
    state = row.state
    ids = filters.get("id", ())
    if ids and not any(i and row.id.startswith(i) for i in ids):
        return False
    statuses = filters.get("status", ())
    if statuses and state.status not in statuses:
        return False
    exited = filters.get("exited", ())
    if exited and (str(state.exit_code) not in exited or state.status not in ("exited", "dead")):
        return False
    if ancestors is not None and row.record.image_id not in ancestors:
        return False
    health = filters.get("health", ())
    if health and (state.health.status if state.health is not None else "none") not in health:
        return False
    labels = row.record.config.labels or {}
    for wanted in filters.get("label", ()):
        key, equals, value = wanted.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _view_matches(view: ContainerView, filters: Mapping[str, Sequence[str]]) -> bool:
    volumes = filters.get("volume", ())
    mounted = {text for m in view.mounts for text in (m.name, m.source, m.destination) if text}
    if volumes and not mounted & set(volumes):
        return False
    networks = filters.get("network", ())
    own = {text for e in view.endpoints for text in (e.network_name, e.network_id)}
    if networks and not any(o == n or o.startswith(n) for n in networks for o in own):
        return False
    published = {(p.host_port, p.protocol) for p in view.ports if p.host_port is not None}
    exposed = {(p.container_port, p.protocol) for p in view.ports}
    wanted = [(name, filters[name]) for name in ("publish", "expose") if filters.get(name)]
    have = {"publish": published, "expose": exposed}
    return not wanted or any(_ports(texts) & have[name] for name, texts in wanted)


def _ports(wanted: Sequence[str]) -> set[tuple[int, str]]:
    found = set()
    for text in wanted:
        low, high, protocol = check_port(text)
        found |= {(port, protocol) for port in range(low, high + 1)}
    return found
