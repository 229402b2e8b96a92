"""The query of ``POST /build``, made from the flags."""

from __future__ import annotations

import os

from wherry.cli.building import flags
from wherry.cli.command import Failure
from wherry.cli.console import safe
from wherry.client import jsonwire
from wherry.client.files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.cli.building.source import BuildSource
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Query = dict[str, Any]


def query_of(
    ctx: Context,
    options: Options,
    source: BuildSource,
    outputs: list[dict[str, str]],
    told: Mapping[str, Mapping[str, str]],
) -> Query:
    arguments = {**flags.proxies(ctx.config), **flags.environment_pairs(options.many("build-arg"))}
    sent = [{"Type": o["type"], "Attrs": {k: v for k, v in o.items() if k != "dest"}} for o in outputs]
    attest = flags.attestations(options)
    query: Query = {
        "t": options.many("tag"),
        "dockerfile": source.dockerfile,
        "remote": source.remote or None,
        "target": options.text("target") or None,
        "platform": options.text("platform") or os.environ.get("DOCKER_DEFAULT_PLATFORM") or None,
        "buildargs": jsonwire.dumps(arguments) if arguments else None,
        "labels": jsonwire.dumps(dict(options.get("label"))) if options.get("label") else None,
        "annotations": jsonwire.dumps(_annotations(options)) if options.many("annotation") else None,
        "contexts": jsonwire.dumps(dict(told)) if told else None,
        "outputs": jsonwire.dumps(sent) if sent else None,
        "attest": jsonwire.dumps(attest) if attest else None,
        "cachefrom": _caches(ctx, options, "cache-from"),
        "cacheto": _caches(ctx, options, "cache-to"),
        "nocache": options.on("no-cache"),
        "nocachefilter": options.many("no-cache-filter"),
        "pull": options.on("pull"),
        "squash": options.on("squash"),
        "networkmode": options.text("network") or None,
        "allow": options.many("allow"),
        "extrahosts": options.many("add-host"),
        "version": 1,
        **flags.resources(options),
    }
    query["q"], query["progress"] = options.on("quiet"), "steps"
    return query


def _annotations(options: Options) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in options.many("annotation"):
        key, equals, value = text.partition("=")
        where, colon, name = key.partition(":")
        if not equals:
            raise Failure(f'ERROR: invalid annotation "{text}", expected key=value')
        if colon and where in ("index", "manifest", "manifest-descriptor", "index-descriptor"):
            if where != "manifest":
                raise Failure(f"ERROR: annotations of the {where} are not supported: only of the manifest")
            key = name
        found[key] = value
    return found


def _caches(ctx: Context, options: Options, what: str) -> str | None:
    """Cache directories are on this side: to import one, the image in it is loaded."""
    found = flags.caches(options.many(what), what)
    for one in found:
        if one["type"] == "local" and what == "cache-from":
            image = _load_cache(ctx, one.pop("src"))
            one["ref"] = image or "cache directory without a cache"
    sent = [{k: v for k, v in one.items() if k != "dest"} for one in found]
    return jsonwire.dumps(sent) if sent else None


def _load_cache(ctx: Context, directory: str) -> str:
    """The id of the image in a cache directory; empty if there is none, which is not an error."""
    from wherry.client import images
    from wherry.client.buildcontext import LocalContext

    try:
        index = jsonwire.loads(read_file(os.path.join(directory, "index.json")))
        identifier = str(index["manifests"][0]["digest"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""
    context = LocalContext(directory)
    context.scan()
    for message in jsonwire.messages(images.load(ctx.api, context.archive(), quiet=True)):
        if isinstance(message, dict) and message.get("error"):
            raise Failure(f"ERROR: cannot read the cache in {directory}: {safe(str(message['error']))}")
    return identifier
