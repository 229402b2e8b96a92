"""Decode the query of ``POST /build`` (the legacy builder's parameters and our additions) into the engine's
request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from multidict import MultiMapping

from wherry.api.progress import parse_platform
from wherry.engine.builds.cache import Bounds, CacheUsage
from wherry.engine.builds.requests import BuildLimits, BuildRequest, NamedContext, Output, outputs
from wherry.errors import InvalidArgument
from wherry.model import reference
from wherry.model.base import convert
from wherry.model.container import HostConfig, Ulimit
from wherry.wire import filters as wire_filters
from wherry.wire.gojson import unmarshal
from wherry.wire.numbers import atoi
from wherry.wire.times import parse_timestamp

T = TypeVar("T")
_READING = {
    "buildargs": "error reading build args",
    "labels": "error reading labels",
    "ulimits": "error reading ulimit settings",
    "cachefrom": "error reading cache-from",
}
"""The beginning of Docker's error messages about these parameters."""
_KINDS = ("image", "local", "http", "git", "target")


def build_request(query: MultiMapping[str]) -> BuildRequest:
    """:raises InvalidArgument: a value is not valid; the text names its key."""
    platforms = [one for one in query.get("platform", "").split(",") if one]
    if query.get("platform", "").startswith("{"):
        platforms = [query["platform"]]
    contexts = _json(query, "contexts", dict[str, dict[str, str]], {})
    given = _json(query, "buildargs", dict[str, str | None], {})
    arguments = {key: value for key, value in given.items() if value is not None}
    return BuildRequest(
        dockerfile=query.get("dockerfile", "") or "Dockerfile",
        text=query["dockerfiletext"].encode() if "dockerfiletext" in query else None,
        remote=query.get("remote", ""),
        tags=[_tag(text) for text in query.getall("t", []) if text],
        target=query.get("target", ""),
        platforms=tuple(map(parse_platform, platforms)),
        build_args=arguments,
        valueless_args=frozenset(given) - frozenset(arguments),
        labels=_json(query, "labels", dict[str, str], {}),
        contexts={name.lower(): _context(name, fields) for name, fields in contexts.items()},
        no_cache=_flag(query, "nocache"),
        no_cache_filter=frozenset(
            name for t in query.getall("nocachefilter", []) for name in t.split(",") if name
        ),
        pull=_flag(query, "pull"),
        network=query.get("networkmode", "") or "default",
        entitlements=frozenset(query.getall("allow", [])),
        limits=_limits(query, arguments),
        outputs=outputs(_outputs(query)),
        annotations=_json(query, "annotations", dict[str, str], {}),
        squash=_flag(query, "squash"),
        cache_from=_caches(query, "cachefrom"),
        cache_to=[*_caches(query, "cacheto"), *_inline(arguments)],
        attestations=_json(query, "attest", dict[str, str], {}),
        name=query.get("buildid", ""),
        debug=_flag(query, "debug"),
        legacy=query.get("progress") != "steps",
    )


def _flag(query: MultiMapping[str], name: str) -> bool:
    return query.get(name, "").strip().lower() not in ("", "0", "no", "false", "none")


def _json(query: MultiMapping[str], name: str, kind: type[T], default: Any) -> T:
    text = query.get(name, "")
    if not text or text == "null":
        return convert(default, kind)
    return unmarshal(text, kind, _READING.get(name, f"invalid {name}"))


def _tag(text: str) -> reference.Reference:
    ref = reference.parse(text)
    if ref.digest is not None:
        raise InvalidArgument("build tag cannot contain a digest")
    return ref.with_default_tag()


def _context(name: str, fields: Mapping[str, str]) -> NamedContext:
    kind = fields.get("kind", "")
    if kind not in _KINDS:
        raise InvalidArgument(f"invalid context {name}: unknown kind {kind!r}")
    return NamedContext(kind, fields.get("value", ""))


def _integer(query: MultiMapping[str], name: str) -> int:
    text = query.get(name, "")
    return atoi(text, "ParseInt") if text else 0


def _limits(query: MultiMapping[str], arguments: Mapping[str, str]) -> BuildLimits:
    isolation = query.get("isolation", "")
    if isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation {isolation!r}: linux has the default one only")
    limits = _json(query, "ulimits", list[Ulimit], [])
    hosts = query.getall("extrahosts", [])
    if len(hosts) == 1 and hosts[0].startswith("["):
        hosts = _json(query, "extrahosts", list[str], [])
    security = [o for text in query.getall("securityopt", []) for o in _words(text)]
    host = HostConfig(
        memory=_integer(query, "memory"),
        memory_swap=_integer(query, "memswap"),
        cpu_shares=_integer(query, "cpushares"),
        cpu_period=_integer(query, "cpuperiod"),
        cpu_quota=_integer(query, "cpuquota"),
        cpuset_cpus=query.get("cpusetcpus", ""),
        cpuset_mems=query.get("cpusetmems", ""),
        shm_size=_integer(query, "shmsize"),
        cgroup_parent=query.get("cgroupparent", ""),
        ulimits=limits or None,
        extra_hosts=list(hosts) or None,
        security_opt=security or None,
    )
    return BuildLimits(host, arguments.get("BUILDKIT_SANDBOX_HOSTNAME", ""))


def _words(text: str) -> list[str]:
    if not text.startswith("["):
        return [text] if text and text != "null" else []
    return unmarshal(text, list[str], "invalid securityopt")


def _outputs(query: MultiMapping[str]) -> Sequence[Mapping[str, Any]]:
    return _json(query, "outputs", list[dict[str, Any]], [])


def _caches(query: MultiMapping[str], name: str) -> Sequence[Mapping[str, str]]:
    """A list of images (as Docker's clients send), or of objects with a ``type``."""
    found = _json(query, name, list[str | dict[str, str]], [])
    return [{"type": "registry", "ref": one} if isinstance(one, str) else one for one in found]


def _inline(arguments: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """The build argument that asks for a cache in the image."""
    wanted = arguments.get("BUILDKIT_INLINE_CACHE", "") in ("1", "true")
    return [{"type": "inline"}] if wanted else []


# ---- prune -------------------------------------------------------------------------------------------------


def bounds(integer: Callable[[str], int | None]) -> Bounds:
    """``reserved-space`` (or the older ``keep-storage``), ``max-used-space``, ``min-free-space``; bytes."""
    reserved = integer("reserved-space") or integer("keep-storage") or 0
    return Bounds(reserved=reserved, most=integer("max-used-space") or 0, free=integer("min-free-space") or 0)


def prune_test(filters: Mapping[str, list[str]], *, everything: bool) -> Callable[[CacheUsage], bool]:
    """Which records a prune may remove. Without ``all`` it keeps those that images share, and those that are
    meant to outlive builds (cache mounts).
    """
    until = parse_timestamp(filters["until"][0]) if "until" in filters else None
    ids, kinds, parents = filters.get("id", ()), filters.get("type", ()), filters.get("parent", ())
    descriptions = filters.get("description", ())
    shared = wire_filters.boolean(filters, "shared")
    private = wire_filters.boolean(filters, "private")
    in_use = wire_filters.boolean(filters, "inuse")

    def test(one: CacheUsage) -> bool:
        row = one.row
        return (
            "label" not in filters  # records have none
            and (until is None or row.used < until)
            and (not ids or any(row.id.startswith(wanted) for wanted in ids))
            and (not kinds or row.kind in kinds)
            and (not parents or row.parent in parents)
            and (not descriptions or any(wanted in row.description for wanted in descriptions))
            and (shared is None or one.shared == shared)
            and (private is None or one.shared != private)
            and (in_use is None or one.in_use == in_use)
            and (everything or bool(ids or kinds) or not one.shared)
        )

    return test


__all__ = ["Output", "bounds", "build_request", "prune_test"]
