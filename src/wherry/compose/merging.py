"""Several files, one project: how a later file overrides an earlier one (Compose specification, "Merge").

Both sides are in their long form. Mappings are merged key by key, lists are concatenated, other values are
replaced; the tables here list the exceptions. Below ``*`` any key.
"""

from __future__ import annotations

from wherry.compose.places import RESET, Map, Place, Seq, copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

REPLACED = frozenset(
    (
        "services.*.command",
        "services.*.entrypoint",
        "services.*.healthcheck.test",
        "services.*.ulimits.*",
        "services.*.build.ulimits.*",
        "services.*.extends",
        "services.*.gpus.*.capabilities",
        "services.*.post_start.*.command",
        "services.*.pre_stop.*.command",
        "networks.*.external",
        "volumes.*.external",
        "secrets.*.external",
        "configs.*.external",
    )
)
"""Keys whose whole value comes from the later file."""


NULL_COUNTS = frozenset(
    (
        "services.*.command",
        "services.*.entrypoint",
        "services.*.environment.*",
        "services.*.build.args.*",
    )
)
"""Keys where null is a value, and differs from an absent key."""


def _file_key(item: Any) -> Any:
    return item.get("target") or item.get("source")


def _port_key(item: Any) -> Any:
    return tuple(str(item.get(key, "")) for key in ("host_ip", "target", "published", "protocol"))


UNIQUE: dict[str, Callable[[Any], Any]] = {
    "services.*.extra_hosts.*": str,
    "services.*.build.extra_hosts.*": str,
    "services.*.ports": _port_key,
    "services.*.volumes": lambda item: item.get("target"),
    "services.*.devices": lambda item: item.get("target") or item.get("source"),
    "services.*.configs": _file_key,
    "services.*.secrets": _file_key,
    "services.*.env_file": lambda item: item.get("path"),
    "services.*.build.secrets": _file_key,
    "services.*.cap_add": str,
    "services.*.cap_drop": str,
    "services.*.dns": str,
    "services.*.dns_opt": str,
    "services.*.dns_search": str,
    "services.*.expose": str,
    "services.*.external_links": str,
    "services.*.label_file": str,
    "services.*.links": str,
    "services.*.profiles": str,
    "services.*.security_opt": str,
    "services.*.tmpfs": lambda item: item.partition(":")[0],
    "services.*.group_add": str,
    "services.*.device_cgroup_rules": str,
    "services.*.volumes_from": str,
    "services.*.build.tags": str,
    "services.*.build.platforms": str,
    "services.*.build.cache_from": str,
    "services.*.build.cache_to": str,
    "services.*.networks.*.aliases": str,
    "services.*.networks.*.link_local_ips": str,
}
"""Lists in which an item takes the place of an earlier one with the same key."""


_DIRECT = [(path.split(".")[2:], key) for path, key in UNIQUE.items() if path.count(".") < 4]


def merge(below: Any, above: Any, path: str = "") -> Any:
    """A new value: ``above`` over ``below``; neither is changed.

    ``path`` has the names of services and the like as ``*``.
    """
    if above is RESET:
        return RESET
    if above is None:
        return None if path in NULL_COUNTS else below
    if below is None or below is RESET or path in REPLACED or getattr(above, "override", False):
        return copied(above)
    if isinstance(above, Map) and isinstance(below, Map):
        if path == "services.*.logging" and _other_driver(below, above):
            return copied(above)
        return _maps(below, above, path)
    if isinstance(above, Seq) and isinstance(below, Seq):
        return _lists(below, above, path)
    return copied(above)


def _other_driver(below: Map, above: Map) -> bool:
    """Options of one log driver mean nothing to another."""
    return bool(above.get("driver") and below.get("driver") and above["driver"] != below["driver"])


_NAMED = frozenset(("services", "networks", "volumes", "secrets", "configs", "models"))
_NAMED_BELOW = frozenset(
    f"services.*.{key}"
    for key in (
        *("ulimits", "build.ulimits", "networks", "environment", "build.args", "extra_hosts"),
        *("build.extra_hosts",),
    )
)
"""Mappings of a service whose keys are names as well."""


def _maps(below: Map, above: Map, path: str) -> Map:
    made = Map(above.at)
    for key, value in below.items():
        made.put(key, copied(value), below.place(key))
    wild = path in _NAMED or path in _NAMED_BELOW
    for key, value in above.items():
        inner = "*" if wild else key
        made.put(
            key, merge(made.get(key), value, f"{path}.{inner}" if path else inner), _place(made, above, key)
        )
    return made


def _place(below: Map, above: Map, key: str) -> Place:
    """The place of a merged value: the later one, unless it only adds to a mapping of the earlier file."""
    if isinstance(above[key], Map) and isinstance(below.get(key), Map):
        return below.place(key)
    return above.place(key)


def _lists(below: Seq, above: Seq, path: str) -> Seq:
    made: Seq = copied(below)
    made.at = above.at
    for index, item in enumerate(above):
        made.add(copied(item), above.place(index))
    key = UNIQUE.get(path)
    return made if key is None else unique(made, key)


def unique(items: Seq, key: Callable[[Any], Any]) -> Seq:
    """Each key once, in the place of its first, with the value of its last."""
    order: dict[Any, tuple[Any, Place]] = {}
    for index, item in enumerate(items):
        order[key(item)] = (item, items.place(index))
    made = Seq(items.at)
    made.override = items.override
    for item, place in order.values():
        made.add(item, place)
    return made


def settle(value: Any) -> Any:
    """Remove the reset markers, once all files are merged."""
    if isinstance(value, Map):
        for key in [key for key, one in value.items() if one is RESET]:
            del value[key]
        for one in value.values():
            settle(one)
    elif isinstance(value, Seq):
        for one in value:
            settle(one)
    return value


def deduplicate(services: Map) -> None:
    """Remove duplicates in the lists of one file: the later item wins there as well."""
    for service in services.values():
        for parts, key in _DIRECT:
            holder = service
            if parts[0] not in service:
                continue
            for part in parts[:-1]:
                holder = holder.get(part) if isinstance(holder, Map) else None
            found = holder.get(parts[-1]) if isinstance(holder, Map) else None
            if isinstance(found, Seq):
                holder[parts[-1]] = unique(found, key)
