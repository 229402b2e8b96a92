"""``wherry build``."""

from __future__ import annotations

import os
import sys

from wherry.cli import buildflags
from wherry.cli.command import Command, Failure, safe
from wherry.cli.flags import Flag
from wherry.cli.shared import on_terminal
from wherry.cli.values import BOOL, BYTES, INT, LABELS, LIST, STRING, STRINGS, SWAP_BYTES
from wherry.client import builds, jsonwire
from wherry.client.files import read_file, write_file
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.cli.buildscreen import Screen
    from wherry.cli.command import Context
    from wherry.cli.flags import Options
    from wherry.client.buildcontext import LocalContext

    Query = dict[str, Any]


_FIRST_CACHE = 1000
"""The number of the first output that is a cache, as the daemon counts them."""


class _Source:
    """Where the Dockerfile and the main context come from."""

    __slots__ = ("archive", "directory", "dockerfile", "remote", "text")

    def __init__(self) -> None:
        self.directory = self.remote = ""
        self.dockerfile = "Dockerfile"
        self.text: bytes | None = None
        self.archive: Iterable[bytes] | None = None


def build(ctx: Context, options: Options, args: list[str]) -> int:
    if args[0] in ("history", "debug") and not os.path.isdir(args[0]):
        return _subcommand(ctx, options, args)
    if len(args) > 1:
        raise Failure(f"wherry: '{ctx.path}' requires 1 argument", 1)
    return build_in(ctx, options, args[0])


def build_in(ctx: Context, options: Options, path: str, kept: dict[str, Any] | None = None) -> int:
    """Build a context. :param kept: takes what the daemon says of a failure's state, which it then keeps."""
    _refuse(options)
    source = _source(options, path)
    call = "check" if options.on("check") else options.text("call") or "build"
    secrets = buildflags.secrets(options.many("secret"))
    agents = buildflags.agents(options.many("ssh"))
    if agents and ctx.find_endpoint()[0].scheme != "unix":
        raise Failure("ERROR: --ssh needs a daemon on this machine")
    outputs = buildflags.outputs(options)
    told, local = buildflags.contexts(options.many("build-context"))
    query = _query(ctx, options, source, outputs, told)
    if call != "build":
        query["call"] = call
    if kept is not None:
        query["debug"] = True
    screen = _screen(options, path)
    try:
        messages = _send(ctx, options, query, source, local, secrets, agents)
        result = _follow(screen, messages, kept)
    except BaseException:
        screen.close()
        for line in screen.failures():
            sys.stderr.write(line + "\n")
        raise
    screen.close()
    if call != "build":
        return _called(ctx, call, result)
    return _finish(ctx, options, outputs, result)


def _subcommand(ctx: Context, options: Options, args: list[str]) -> int:
    """``build history [ID]`` and ``build debug PATH``, unless a context has that name."""
    if args[0] == "debug":
        from wherry.cli.builddebug import debug

        return debug(ctx, options, args[1:])
    from wherry.cli.commands import builder
    from wherry.cli.flags import Options as Parsed

    if len(args) > 1:
        return builder.show(ctx, Parsed(builder.SHOW.flags), args[1:])
    return builder.history(ctx, Parsed(builder.HISTORY.flags), [])


def _refuse(options: Options) -> None:
    """What cannot be had, by name."""
    if options.text("builder") not in ("", "default"):
        raise Failure(f"ERROR: no builder {options.text('builder')!r} found: the daemon builds (default)")
    if options.many("policy"):
        raise Failure("ERROR: --policy is not supported")
    if options.given("rm") and not options.on("rm"):
        raise Failure(
            "ERROR: --rm=false is not supported: steps leave no containers behind (see build debug)"
        )
    for text in options.many("allow"):
        if text not in ("network.host", "security.insecure") and not text.startswith("device"):
            raise Failure(f"ERROR: invalid entitlement: {text}")


# ---- where from --------------------------------------------------------------------------------------------


def _source(options: Options, path: str) -> _Source:
    source = _Source()
    file = options.text("file")
    if path == "-":
        if file == "-":
            raise Failure("ERROR: invalid argument: can't use stdin for both build context and dockerfile")
        _from_stdin(source)
        source.dockerfile = file or source.dockerfile
        return source
    if buildflags.is_git(path) or path.startswith(("http://", "https://")):
        source.remote = path
        source.dockerfile = file or "Dockerfile"
        return source
    if not os.path.isdir(path):
        raise Failure(f'ERROR: unable to prepare context: path "{safe(path)}" not found')
    source.directory = path
    if file == "-":
        source.text, source.dockerfile = sys.stdin.buffer.read(), "-"
        return source
    _find_dockerfile(source, file)
    return source


def _from_stdin(source: _Source) -> None:
    """An archive, or a Dockerfile without a context."""
    import io

    stdin = io.BufferedReader(io.FileIO(0, closefd=False), 1 << 18)
    head = stdin.peek(512)[:512]
    compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
    if compressed or head[257:262] == b"ustar":
        source.archive = iter(lambda: stdin.read1(1 << 18), b"")
    else:
        source.text = stdin.read()
        source.dockerfile = "Dockerfile"


def _find_dockerfile(source: _Source, file: str) -> None:
    """Within the context by its path there; elsewhere it is read here and sent beside."""
    path = file or os.path.join(source.directory, "Dockerfile")
    if not file and not os.path.exists(path) and os.path.exists(os.path.join(source.directory, "dockerfile")):
        path = os.path.join(source.directory, "dockerfile")
    try:
        text = read_file(path)
    except OSError as e:
        raise Failure(f"ERROR: failed to read dockerfile: open {safe(path)}: {e.strerror}") from None
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(source.directory))
    source.dockerfile = inside if not inside.startswith("..") else os.path.basename(path)
    if inside.startswith(".."):
        source.text = text


def _local(directory: str, dockerfile: str) -> LocalContext:
    """A context, with its ignore file obeyed: ``<Dockerfile>.dockerignore`` before ``.dockerignore``."""
    from wherry.client.buildcontext import LocalContext

    keep = [dockerfile] if dockerfile else []
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = os.path.join(directory, name)
        if dockerfile and os.path.isfile(path):
            from wherry.model.ignore import Patterns, read

            lines = read(read_file(path).decode("utf-8", "surrogateescape"))
            return LocalContext(directory, Patterns(lines), [*keep, name])
    return LocalContext(directory)


# ---- the request -------------------------------------------------------------------------------------------


def _query(
    ctx: Context,
    options: Options,
    source: _Source,
    outputs: list[dict[str, str]],
    told: Mapping[str, Mapping[str, str]],
) -> Query:
    arguments = {**buildflags.proxies(ctx.config), **buildflags.environment_pairs(options.many("build-arg"))}
    sent = [{"Type": o["type"], "Attrs": {k: v for k, v in o.items() if k != "dest"}} for o in outputs]
    attest = buildflags.attestations(options)
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
        **buildflags.resources(options),
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
    """Directories are on this side: one to take from is loaded as the image that it holds."""
    found = buildflags.caches(options.many(what), what)
    for one in found:
        if one["type"] == "local" and what == "cache-from":
            image = _load_cache(ctx, one.pop("src"))
            one["ref"] = image or "cache directory without a cache"
    sent = [{k: v for k, v in one.items() if k != "dest"} for one in found]
    return jsonwire.dumps(sent) if sent else None


def _load_cache(ctx: Context, directory: str) -> str:
    """The id of the image in a cache directory; empty where there is none, which is no reason to fail."""
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


# ---- sending -----------------------------------------------------------------------------------------------


def _send(
    ctx: Context,
    options: Options,
    query: Query,
    source: _Source,
    local: Mapping[str, str],
    secrets: Mapping[str, bytes],
    agents: Mapping[str, str],
) -> Iterator[Any]:
    from wherry.client import credentials

    headers = credentials.headers_for_all(ctx.config_dir, _images(source, options))
    if source.archive is not None:
        if secrets or local or agents:
            raise Failure("ERROR: secrets, agents and named contexts need a context that is a directory")
        archive = source.archive
        return builds.build(ctx.api, query, archive=_compressed(archive, options), headers=headers)
    try:
        session = builds.open_session(ctx.api, secrets, agents, source.text)
    except NotFound:
        return _send_whole(ctx, options, query, source, local, secrets, headers)
    try:
        if source.directory:
            _sync(ctx, session, "", _local(source.directory, _inside(source)))
        for name, directory in local.items():
            _sync(ctx, session, name, _local(directory, ""))
        return builds.build(ctx.api, {**query, "session": session}, archive=None, headers=headers)
    except BaseException:
        try:
            builds.close_session(ctx.api, session)
        except Exception:
            ctx.close()
        raise


def _images(source: _Source, options: Options) -> list[str]:
    """Names of images that registries may be asked about, as far as they can be told from here."""
    import re

    from wherry.model import reference

    text = source.text or b""
    if not text and source.directory:
        text = read_file(os.path.join(source.directory, source.dockerfile))
    found = re.findall(
        r"^[ \t]*(?:FROM|COPY)[ \t]+(?:--(?:from=)?\S+[ \t]+)*(\S+)",
        text.decode("utf-8", "replace"),
        re.MULTILINE | re.IGNORECASE,
    )
    caches = [
        one.get("ref", "")
        for name in ("cache-from", "cache-to")
        for one in buildflags.caches(options.many(name), name)
    ]
    names = []
    for name in [*found, *options.many("tag"), *caches]:
        try:
            reference.parse(name)
        except InvalidArgument:
            continue
        names.append(name)
    return names


def _inside(source: _Source) -> str:
    return source.dockerfile if source.text is None else "Dockerfile"


def _sync(ctx: Context, session: str, name: str, context: LocalContext) -> None:
    context.scan()
    need = builds.compare(ctx.api, session, name, context.key, context.manifest())
    if need is not None:
        builds.send(ctx.api, session, name, context.archive(need))


def _send_whole(
    ctx: Context,
    options: Options,
    query: Query,
    source: _Source,
    local: Mapping[str, str],
    secrets: Mapping[str, bytes],
    headers: Mapping[str, str],
) -> Iterator[Any]:
    """To a daemon that keeps no contexts (Docker's)."""
    if secrets or local or source.text is not None:
        raise Failure("ERROR: secrets, named contexts and a Dockerfile from elsewhere need wherry's daemon")
    if not source.directory:
        return builds.build(ctx.api, query, archive=None, headers=headers)
    context = _local(source.directory, source.dockerfile)
    context.scan()
    return builds.build(ctx.api, query, archive=_compressed(context.archive(), options), headers=headers)


def _compressed(archive: Iterable[bytes], options: Options) -> Iterator[bytes]:
    if not options.on("compress"):
        yield from archive
        return
    import zlib

    compressor = zlib.compressobj(wbits=31)
    for piece in archive:
        if out := compressor.compress(piece):
            yield out
    yield compressor.flush()


# ---- following and finishing -------------------------------------------------------------------------------


def _screen(options: Options, title: str) -> Screen:
    from wherry.cli import buildscreen

    wanted = options.text("progress") or os.environ.get("BUILDKIT_PROGRESS", "") or "auto"
    if wanted not in ("auto", "plain", "tty", "quiet", "rawjson"):
        raise Failure(f"ERROR: invalid progress mode {wanted!r}: auto, plain, tty, quiet or rawjson")
    if options.on("quiet") or wanted == "quiet":
        return buildscreen.SilentScreen()
    if wanted == "rawjson":
        return buildscreen.RawScreen()
    if wanted == "tty" or (wanted == "auto" and on_terminal(2)):
        return buildscreen.TreeScreen(f"Building {safe(title)}")
    return buildscreen.Screen()


def _follow(screen: Screen, messages: Iterator[Any], kept: dict[str, Any] | None = None) -> dict[str, Any]:
    """Show a build to its end; what its last messages say of the result."""
    result: dict[str, Any] = {} if kept is None else kept
    for message in messages:
        if not isinstance(message, dict):
            raise InvalidArgument("cannot read the daemon's answer: not a progress message")
        if message.get("error") or message.get("errorDetail"):
            detail = message.get("errorDetail") or {}
            text = str(detail.get("message") or message.get("error"))
            raise Failure(f"ERROR: {safe(text)}", 1)
        if message.get("aux") is not None:
            result.update(message["aux"])
        else:
            if str(message.get("stream", "")).startswith("sha256:"):
                result["ID"] = str(message["stream"]).strip()
            screen.put(message)
    return result


def _finish(ctx: Context, options: Options, outputs: list[dict[str, str]], result: dict[str, Any]) -> int:
    image = str(result.get("ID", ""))
    caches = [
        one for one in buildflags.caches(options.many("cache-to"), "cache-to") if one["type"] == "local"
    ]
    for number, cache in enumerate(caches, _FIRST_CACHE):
        _take(ctx, {"type": "local", "dest": cache["dest"]}, str(result.get("Build", "")), number)
    for number, output in enumerate(outputs):
        if output["type"] in ("local", "tar", "oci", "docker"):
            _take(ctx, output, str(result.get("Build", "")), number)
    if options.text("iidfile"):
        _write(options.text("iidfile"), image)
    if options.text("metadata-file"):
        metadata = dict(result.get("Metadata") or {})
        _write(options.text("metadata-file"), jsonwire.indented(metadata, "  ") + "\n")
    if options.on("quiet"):
        ctx.say(image)
    return 0


def _write(path: str, text: str) -> None:
    try:
        write_file(path, [text.encode()])
    except OSError as e:
        raise Failure(f"ERROR: cannot write {path}: {e.strerror}") from None


def _take(ctx: Context, output: Mapping[str, str], build_id: str, number: int) -> None:
    """Fetch an output and put it where it is wanted."""
    destination = output["dest"]
    response = builds.output(ctx.api, build_id, number)
    pieces = iter(lambda: response.read(), b"")
    is_directory = output["type"] == "local" or output.get("tar") == "false"
    if is_directory:
        from wherry.client.unpack import Unpacker

        os.makedirs(destination, exist_ok=True)
        Unpacker(destination, pieces, old="", new="", archive=False, complain=ctx.complain).run()
        return
    if destination == "-":
        if on_terminal(1):
            raise Failure("ERROR: dest file is required for tar exporter. refusing to write to console")
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    write_file(destination, pieces)


def _called(ctx: Context, call: str, result: dict[str, Any]) -> int:
    from wherry.cli.buildcalls import show

    return show(ctx, call, result)


BUILD = Command(
    "[OPTIONS] PATH | URL | - | history [BUILD] | debug PATH",
    build,
    (
        Flag("add-host", "", LIST, 'Add a custom host-to-IP mapping (format: "host:ip")'),
        Flag("allow", "", STRINGS, 'Allow an extra privilege (e.g., "network.host", "security.insecure")'),
        Flag("annotation", "", LIST, "Add an annotation to the image"),
        Flag("attest", "", LIST, 'Attestation parameters (format: "type=sbom,generator=image")'),
        Flag("build-arg", "", LIST, "Set build-time variables"),
        Flag("build-context", "", LIST, "Further build contexts (e.g., name=path)"),
        Flag("builder", "", STRING, "The builder; there is one, the daemon", hidden=True),
        Flag(
            "cache-from", "", LIST, 'Where to take cache from (e.g., "user/app:cache", "type=local,src=dir")'
        ),
        Flag("cache-to", "", LIST, 'Where to send cache to (e.g., "user/app:cache", "type=local,dest=dir")'),
        Flag("call", "", STRING, 'What to do: "build", "check", "outline" or "targets"', shown="build"),
        Flag("cgroup-parent", "", STRING, 'Set the parent cgroup for the "RUN" instructions'),
        Flag("check", "", BOOL, 'Shorthand for "--call=check"'),
        Flag("compress", "", BOOL, "Compress the build context using gzip"),
        Flag("cpu-period", "", INT, "Limit the CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", INT, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-shares", "c", INT, "CPU shares (relative weight)"),
        Flag("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("debug", "D", BOOL, "Say more in case of failure", hidden=True),
        Flag("file", "f", STRING, "Name of the Dockerfile", shown="PATH/Dockerfile", complete="file"),
        Flag("force-rm", "", BOOL, "Always remove intermediate containers; there are none", hidden=True),
        Flag("iidfile", "", STRING, "Write the image ID to a file", complete="file"),
        Flag("isolation", "", STRING, "Container isolation technology", hidden=True),
        Flag("label", "", LABELS, "Set metadata for an image"),
        Flag("load", "", BOOL, 'Shorthand for "--output=type=docker"'),
        Flag("memory", "m", BYTES, "Memory limit"),
        Flag("memory-swap", "", SWAP_BYTES, "Memory plus swap; -1 for unlimited swap"),
        Flag("metadata-file", "", STRING, "Write build result metadata to a file", complete="file"),
        Flag("network", "", STRING, 'Set the networking mode for the "RUN" instructions', shown="default"),
        Flag("no-cache", "", BOOL, "Do not use cache when building the image"),
        Flag("no-cache-filter", "", STRINGS, "Do not cache specified stages"),
        Flag("output", "o", LIST, 'Where the result goes (format: "type=local,dest=path")'),
        Flag("platform", "", STRING, "Set target platform for build"),
        Flag("policy", "", LIST, "Policy", hidden=True),
        Flag("progress", "", STRING, 'How to show progress: "auto", "plain", "tty", "quiet", "rawjson"'),
        Flag("provenance", "", STRING, 'Shorthand for "--attest=type=provenance"'),
        Flag("pull", "", BOOL, "Always attempt to pull all referenced images"),
        Flag("push", "", BOOL, 'Shorthand for "--output=type=registry"'),
        Flag("quiet", "q", BOOL, "Suppress the build output and print the image ID on success"),
        Flag("resource", "", LIST, 'Limits of the "RUN" instructions (format: "memory=1g,cpu=2")'),
        Flag("rm", "", BOOL, "Remove intermediate containers", default=True, hidden=True),
        Flag("sbom", "", STRING, 'Shorthand for "--attest=type=sbom"'),
        Flag("secret", "", LIST, 'Secret to expose to the build (format: "id=mysecret,src=path")'),
        Flag("security-opt", "", LIST, "Security options"),
        Flag("shm-size", "", BYTES, "Shared memory size for build containers"),
        Flag("squash", "", BOOL, "Squash newly built layers into a single new layer"),
        Flag("ssh", "", LIST, "SSH agent or keys to expose to the build"),
        Flag("tag", "t", LIST, 'Name and optionally a tag (format: "name:tag")', complete="image"),
        Flag("target", "", STRING, "Set the target build stage to build"),
        Flag("ulimit", "", LIST, "Ulimit options"),
    ),
    least=1,
    most=2,
    complete="file",
)
