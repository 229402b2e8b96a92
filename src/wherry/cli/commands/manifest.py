"""``wherry manifest create|annotate|inspect|push|rm``: make indexes of several platforms by hand."""

from __future__ import annotations

import base64
import json

from wherry.cli.command import UNLIMITED, Command, Failure, each
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING, STRINGS
from wherry.cli.terminal.progress import show
from wherry.client import credentials, manifests, registries
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.model.reference import Reference

    Object = dict[str, Any]

_PLATFORM = {
    "os": "os",
    "arch": "architecture",
    "variant": "variant",
    "os-version": "os.version",
    "os-features": "os.features",
}


def _name(text: str) -> Reference:
    from wherry.model import reference

    return reference.parse(text).with_default_tag()


def _list_name(text: str) -> str:
    name = _name(text)
    if name.digest is not None:
        raise InvalidArgument(f"invalid reference {text!r}: a list of manifests needs a tag, not a digest")
    return str(name)


def _member(ctx: Context, text: str) -> Object:
    """A registry's manifest as a member of a list."""
    name = str(_name(text))
    found = registries.inspect(ctx.api, name, headers=credentials.header_for(ctx.config_dir, name))
    target, platforms = found["Descriptor"], found.get("Platforms") or []
    if target["mediaType"] in (manifests.INDEX, manifests.DOCKER_LIST):
        raise Failure(f"{text} is a list of manifests itself: name its members by digest")
    return {
        "name": name,
        "descriptor": {
            "mediaType": target["mediaType"],
            "digest": target["digest"],
            "size": target["size"],
            "platform": platforms[0] if platforms else {"architecture": "unknown", "os": "unknown"},
        },
    }


def create(ctx: Context, options: Options, args: list[str]) -> int:
    store, name = manifests.ManifestStore(ctx.config_dir), _list_name(args[0])
    members: list[Object] = []
    try:
        members = store.get(name)
    except NotFound:
        pass
    else:
        if not options.on("amend"):
            raise Failure(f"refusing to amend an existing manifest list with no --amend flag: {args[0]}")
    for text in args[1:]:
        fresh = _member(ctx, text)
        members = [one for one in members if one["descriptor"]["digest"] != fresh["descriptor"]["digest"]]
        members.append(fresh)
    store.put(name, members)
    ctx.say(f"Created manifest list {name}")
    return 0


def annotate(ctx: Context, options: Options, args: list[str]) -> int:
    store, name = manifests.ManifestStore(ctx.config_dir), _list_name(args[0])
    members, wanted = store.get(name), _name(args[1])
    chosen = [
        one
        for one in members
        if one["name"] == str(wanted) or (wanted.digest and one["descriptor"]["digest"] == wanted.digest)
    ]
    if not chosen:
        raise Failure(f"manifest for image {args[1]} does not exist in {args[0]}")
    for one in chosen:
        platform = one["descriptor"]["platform"]
        for flag, key in _PLATFORM.items():
            if options.given(flag):
                platform[key] = options.many(flag) if flag == "os-features" else options.text(flag)
    store.put(name, members)
    return 0


def inspect(ctx: Context, options: Options, args: list[str]) -> int:
    if len(args) == 2:
        name, wanted = _list_name(args[0]), str(_name(args[1]))
        members = manifests.ManifestStore(ctx.config_dir).get(name)
        found = next((one for one in members if one["name"] == wanted), None)
        if found is None:
            raise Failure(f"No such manifest: {args[1]}")
        return _show(ctx, found["descriptor"])
    try:
        return _show(
            ctx, manifests.document(manifests.ManifestStore(ctx.config_dir).get(str(_name(args[0]))))[1]
        )
    except NotFound:
        name = str(_name(args[0]))
    answer = registries.inspect(ctx.api, name, raw=True, headers=credentials.header_for(ctx.config_dir, name))
    document = json.loads(base64.b64decode(answer["Document"]))
    if options.on("verbose"):
        document = {"Ref": name, "Descriptor": answer["Descriptor"], "Document": document}
    return _show(ctx, document)


def _show(ctx: Context, document: Object) -> int:
    for line in json.dumps(document, indent=3, ensure_ascii=False).splitlines():
        ctx.line(line)
    return 0


def push(ctx: Context, options: Options, args: list[str]) -> int:
    store, name = manifests.ManifestStore(ctx.config_dir), _list_name(args[0])
    members, target = store.get(name), _name(args[0])
    for member in members:
        digest = member["descriptor"]["digest"]
        source = _name(member["name"])
        if source.name != target.name:
            there = f"{target.name}@{digest}"
            headers = credentials.headers_for_all(ctx.config_dir, [str(source), there])
            show(registries.copy(ctx.api, f"{source.name}@{digest}", there, headers=headers), quiet=True)
        ctx.say(f"Pushed ref {target.name}@{digest} with digest: {digest}")
    kind, document = manifests.document(members)
    data = json.dumps(document, indent=3).encode()
    answer = registries.put_manifest(
        ctx.api, name, kind, data, headers=credentials.header_for(ctx.config_dir, name)
    )
    ctx.line(str(answer["Descriptor"]["digest"]))
    if options.on("purge"):
        store.remove(name)
    return 0


def remove(ctx: Context, _options: Options, args: list[str]) -> int:
    store = manifests.ManifestStore(ctx.config_dir)
    return each(ctx, args, lambda text: store.remove(_list_name(text)))


CREATE = Command(
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    create,
    (Flag("amend", "a", BOOL, "Amend an existing manifest list"),),
    least=2,
    most=UNLIMITED,
    complete="image",
)
ANNOTATE = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    annotate,
    (
        Flag("arch", "", STRING, "Set architecture"),
        Flag("os", "", STRING, "Set operating system"),
        Flag("os-features", "", STRINGS, "Set operating system feature"),
        Flag("os-version", "", STRING, "Set operating system version"),
        Flag("variant", "", STRING, "Set architecture variant"),
    ),
    least=2,
    most=2,
    complete="image image none",
)
INSPECT = Command(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    inspect,
    (Flag("verbose", "v", BOOL, "Output the descriptor as well"),),
    least=1,
    most=2,
    complete="image image none",
)
PUSH = Command(
    "[OPTIONS] MANIFEST_LIST",
    push,
    (Flag("purge", "p", BOOL, "Remove the local manifest list after push"),),
    least=1,
    most=1,
    complete="image none",
)
RM = Command("MANIFEST_LIST [MANIFEST_LIST...]", remove, least=1, most=UNLIMITED, complete="image")
