"""Turn a client's attributes for the Dockerfile frontend into the engine's request.

An unknown attribute is refused with an error that names it: a build must not ignore what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from wherry.buildkit.proto import control_pb2
from wherry.engine.builds.requests import (
    IMAGE,
    BuildLimits,
    BuildRequest,
    NamedContext,
    Output,
    outputs,
)
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model import oci, typed
from wherry.model.container import HostConfig, Ulimit

SESSION_CONTEXT = "http://buildkit-session/"
_CAPS = {
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.inputs",
}
_ENTITLEMENTS = {"security.insecure", "network.host", "device"}
_IGNORED = {"multi-platform", "sandbox-platform"}
"""Attributes whose only supported value is the default."""


@dataclass(frozen=True)
class AskedBuild:
    """``call`` is a subrequest's name, ``""`` for a build. ``main`` and ``definition`` name the directories
    of the context and of the Dockerfile (``""``: there is no context; the Dockerfile is in the context).
    ``upload`` is sent by the client instead of a context. ``sessions`` and ``keys`` are indexed by such
    names. ``held`` are results of other builds, by the image name that stands for them.
    """

    request: BuildRequest
    call: str = ""
    main: str = "context"
    definition: str = "dockerfile"
    upload: str = ""
    locals: Mapping[str, str] = field(default_factory=dict)
    sessions: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)


class _Reader:
    """The attributes. They are removed as they are used; those that are left are unknown."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._left = dict(attributes)

    def take(self, name: str, default: str = "") -> str:
        return self._left.pop(name, default)

    def has(self, name: str) -> bool:
        return name in self._left

    def under(self, prefix: str) -> dict[str, str]:
        found = {key: value for key, value in self._left.items() if key.startswith(prefix)}
        for key in found:
            del self._left[key]
        return {key.removeprefix(prefix): value for key, value in found.items()}

    def number(self, name: str) -> int:
        text = self.take(name)
        try:
            return int(text) if text else 0
        except ValueError as e:
            raise InvalidArgument(f"invalid {name} {text[:80]!r}: a number") from e

    def flag(self, name: str) -> bool:
        text = self.take(name).lower()
        if text not in ("", "0", "1", "true", "false"):
            raise InvalidArgument(f"invalid boolean {text[:80]!r} of {name}")
        return text in ("1", "true")

    def finish(self) -> None:
        if self._left:
            raise InvalidArgument(f"frontend attribute {min(self._left)!r} is not supported")


def asked(
    attributes: Mapping[str, str],
    entitlements: Sequence[str] = (),
    inputs: Mapping[str, str] | None = None,
) -> AskedBuild:
    """:param inputs: results of other builds by the names that ``input:NAME`` contexts give them; ``None``:
    they do not exist yet.

    :raises InvalidArgument: an invalid value, or an unknown attribute; the text names it.
    """
    reader = _Reader(attributes)
    _skip(reader)
    held: dict[str, str] = {}
    contexts, locals_ = _contexts(reader, inputs, held)
    context = reader.take("context")
    main = reader.take("contextkey", "context")
    definition = reader.take("dockerfilekey", "dockerfile")
    if context and not context.startswith(SESSION_CONTEXT):
        definition = definition if "dockerfilekey" in attributes else ""
    arguments = reader.under("build-arg:")
    no_cache = reader.has("no-cache")
    filtered = reader.take("no-cache")
    upload = context.removeprefix(SESSION_CONTEXT) if context.startswith(SESSION_CONTEXT) else ""
    request = BuildRequest(
        dockerfile=reader.take("filename") or "Dockerfile",
        remote="" if upload else context,
        target=reader.take("target"),
        platforms=tuple(oci.parse_platform(one) for one in reader.take("platform").split(",") if one),
        build_args=arguments,
        labels=reader.under("label:"),
        contexts=contexts,
        no_cache=no_cache and not filtered,
        no_cache_filter=frozenset(one.strip().lower() for one in filtered.split(",") if one.strip()),
        pull=_pull(reader),
        network=_network(reader),
        entitlements=_entitled(entitlements),
        limits=_limits(reader, arguments),
        cache_from=[*_imports(reader), *_import_names(reader)],
        cache_to=_inline(arguments),
        attestations=_attestations(reader),
    )
    found = AskedBuild(
        request,
        call=reader.take("requestid"),
        main=main,
        definition="" if upload and "dockerfilekey" not in attributes else definition,
        upload=upload,
        locals=locals_,
        sessions=reader.under("local-sessionid:"),
        keys=reader.under("sharedkey:"),
        held=held,
    )
    reader.finish()
    return found


def _skip(reader: _Reader) -> None:
    """Remove attributes that are for other frontends or only informative."""
    for name in _IGNORED:
        reader.take(name)
    reader.under("input-metadata:")
    reader.under("vcs:")  # the client's directory; only used for attestations
    for cap in reader.take("frontend.caps").split(","):
        if cap and cap.removesuffix("+forward") not in _CAPS:
            raise InvalidArgument(f"frontend capability {cap!r} is not supported")
    source = reader.take("source") or reader.take("cmdline")
    if source and not is_ours(source):
        raise NotImplemented_(
            f"frontend gateway.v0 of {source[:200]} is not supported: only docker/dockerfile is built in"
        )


def is_ours(source: str) -> bool:
    """Whether a frontend's image is the one that is built in."""
    name = source.partition("@")[0].removeprefix("docker.io/")
    return name in ("docker/dockerfile", "docker/dockerfile-upstream") or name.startswith(
        ("docker/dockerfile:", "docker/dockerfile-upstream:")
    )


def _contexts(
    reader: _Reader, inputs: Mapping[str, str] | None, held: dict[str, str]
) -> tuple[dict[str, NamedContext], dict[str, str]]:
    """The named contexts, and the directories of those that the client sends."""
    found: dict[str, NamedContext] = {}
    locals_: dict[str, str] = {}
    for key, value in reader.under("context:").items():
        name = key.partition("::")[0].lower()
        scheme, _, rest = value.partition(":")
        if scheme == "local":
            locals_[name] = rest
            found[name] = NamedContext("local", name)
        elif scheme == "docker-image":
            found[name] = NamedContext("image", rest.removeprefix("//"))
        elif scheme == "input":
            ref = "" if inputs is None else inputs.get(rest, "")
            if inputs is not None and not ref:
                raise InvalidArgument(f"invalid context {name}: no input {rest}")
            held[f"target:{name}@{ref}"] = ref
            found[name] = NamedContext("image", f"target:{name}@{ref}")
        elif scheme == "oci-layout":
            found[name] = NamedContext("image", value)
        elif scheme in ("http", "https"):
            git = value.partition("#")[0].endswith(".git")
            found[name] = NamedContext("git" if git else "http", value)
        elif scheme in ("git", "ssh") or value.startswith("git@"):
            found[name] = NamedContext("git", value)
        else:
            raise InvalidArgument(f"invalid context {name}: unknown kind of {value[:200]!r}")
    return found, locals_


def _pull(reader: _Reader) -> bool:
    mode = reader.take("image-resolve-mode", "default")
    if mode not in ("default", "local", "pull"):
        raise InvalidArgument(f"invalid image-resolve-mode {mode[:80]!r}")
    return mode == "pull"


def _network(reader: _Reader) -> str:
    mode = reader.take("force-network-mode", "default")
    if mode in ("", "sandbox"):
        return "default"
    if mode not in ("default", "host", "none"):
        raise InvalidArgument(f"invalid force-network-mode {mode[:80]!r}")
    return mode


def _entitled(entitlements: Sequence[str]) -> frozenset[str]:
    for one in entitlements:
        if one.partition("=")[0] not in _ENTITLEMENTS:
            raise InvalidArgument(f"entitlement {one[:80]!r} is not supported")
    return frozenset(entitlements)


def _limits(reader: _Reader, arguments: Mapping[str, str]) -> BuildLimits:
    host = HostConfig(
        memory=reader.number("memory"),
        memory_swap=reader.number("memswap"),
        cpu_shares=reader.number("cpushares"),
        cpu_period=reader.number("cpuperiod"),
        cpu_quota=reader.number("cpuquota"),
        cpuset_cpus=reader.take("cpusetcpus"),
        cpuset_mems=reader.take("cpusetmems"),
        shm_size=reader.number("shm-size"),
        cgroup_parent=reader.take("cgroup-parent"),
        ulimits=[_ulimit(one) for one in reader.take("ulimit").split(",") if one] or None,
        extra_hosts=[one.replace("=", ":", 1) for one in reader.take("add-hosts").split(",") if one] or None,
    )
    return BuildLimits(host, reader.take("hostname") or arguments.get("BUILDKIT_SANDBOX_HOSTNAME", ""))


def _ulimit(text: str) -> Ulimit:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError as e:
        raise InvalidArgument(f"invalid ulimit {text[:80]!r}") from e


def _attestations(reader: _Reader) -> dict[str, str]:
    """``attest:provenance`` and ``attest:sbom``, with their fields."""
    found = reader.under("attest:")
    for kind in found:
        if kind not in ("provenance", "sbom"):
            raise InvalidArgument(f"unsupported attestation type: {kind!r}")
    return found


# ---- caches ------------------------------------------------------------------------------------------------


def _imports(reader: _Reader) -> Sequence[Mapping[str, str]]:
    text = reader.take("cache-imports")
    if not text:
        return []
    try:
        entries = typed.from_json(text, list[dict[str, Any]])
    except msgspec.DecodeError as e:
        raise InvalidArgument(f"invalid cache-imports: {e}") from e
    return [cache(str(one.get("Type", "")), one.get("Attrs") or {}) for one in entries]


def _import_names(reader: _Reader) -> Sequence[Mapping[str, str]]:
    return [{"type": "registry", "ref": one} for one in reader.take("cache-from").split(",") if one]


def cache(kind: str, attributes: Mapping[str, str]) -> Mapping[str, str]:
    """:raises NotImplemented_: a kind of cache that is not supported."""
    if kind not in ("registry", "local", "inline"):
        raise NotImplemented_(f"cache of type {kind!r} is not supported: registry, local or inline")
    return {**attributes, "type": kind}


def _inline(arguments: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """The build argument that asks for a cache in the image."""
    wanted = arguments.get("BUILDKIT_INLINE_CACHE", "") in ("1", "true")
    return [{"type": "inline"}] if wanted else []


# ---- outputs -----------------------------------------------------------------------------------------------


def with_exports(request: BuildRequest, solve: control_pb2.SolveRequest) -> BuildRequest:
    """Add the outputs that a Solve asks for to the request."""
    found = [(one.Type, one.Attrs) for one in solve.Exporters]
    if not found and solve.ExporterDeprecated:
        found = [(solve.ExporterDeprecated, solve.ExporterAttrsDeprecated)]
    exports = [cache(one.Type, one.Attrs) for one in solve.Cache.Exports]
    inline = {one["type"] for one in exports}
    return replace(
        request,
        outputs=exporters(found),
        cache_to=[*exports, *(one for one in request.cache_to if one["type"] not in inline)],
    )


def exporters(found: Sequence[tuple[str, Mapping[str, str]]]) -> Sequence[Output]:
    """``Exporters`` of a Solve. An empty list: the result is not exported."""
    if not found:
        return ()
    return outputs(
        [{"Type": "moby" if kind == IMAGE else kind, "Attrs": dict(attrs)} for kind, attrs in found]
    )
