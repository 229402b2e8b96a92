"""``wherry context``: named daemons, shared with the docker CLI."""

from __future__ import annotations

import os
import sys

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.console import indented, on_terminal, safe
from wherry.cli.grammar.common import FORMAT, FORMAT_TABLE
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING, Kind
from wherry.cli.render import table, units
from wherry.cli.render.rows import fields
from wherry.cli.render.table import Row
from wherry.client import contexts, discovery
from wherry.client.contexts import DOCKER, ContextDirectory
from wherry.client.files import read_file, write_all
from wherry.errors import InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.client.contexts import Material

    Object = dict[str, Any]

DEFAULT = discovery.DEFAULT
DEFAULT_TEXT = "Current DOCKER_HOST based configuration"
IN_MEMORY = "<IN MEMORY>"
ERROR_SHOWN = 45
"""The maximum length of an error in a line."""


def _settings(text: str) -> list[tuple[str, str]]:
    """``host=tcp://h:2376,ca=ca.pem``, with the quotes of CSV."""
    from csv import reader

    pairs = []
    for field in next(reader([text]), []):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"{field} must be formatted as key=value")
        pairs.append((key, value))
    return pairs


SETTINGS = Kind("stringToString", _settings, repeats=True, splits=True)


# ---- what there is -----------------------------------------------------------------------------------------


def _default(ctx: Context) -> tuple[Object, Material]:
    """The context ``default``: the daemon of the command line or the environment, else the local socket."""
    wanted = ctx.wanted if ctx.wanted.host else discovery.WantedDaemon(context=DEFAULT)
    endpoint, _ = discovery.find(wanted, os.environ, ctx.config_dir)
    tls = endpoint.tls
    files = {} if tls is None else {"ca.pem": tls.ca, "cert.pem": tls.cert, "key.pem": tls.key}
    material = {name: read_file(path) for name, path in files.items() if path}
    docker = {"Host": endpoint.host, "SkipTLSVerify": tls is not None and not tls.verify}
    return {"Name": DEFAULT, "Metadata": {}, "Endpoints": {DOCKER: docker}}, (
        {DOCKER: material} if material else {}
    )


def _read(ctx: Context, name: str) -> tuple[Object, Material]:
    """:raises NotFound: no such context."""
    if name == DEFAULT:
        return _default(ctx)
    store = ContextDirectory(ctx.config_dir)
    return store.read(name), store.tls(name)


class ContextLine(Row):
    """One context of ``context ls``."""

    TYPE = "formatter.clientContextContext"
    FIELDS = fields("Current Description DockerEndpoint Error Name")
    HEADERS = {
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "DockerEndpoint": "DOCKER ENDPOINT",
        "Error": "ERROR",
    }
    TABLE = "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"

    def __init__(self, name: str, *, current: bool, text: str = "", host: str = "", error: str = "") -> None:
        self.name, self.current, self.text, self.host, self.error = name, current, text, host, error

    def get_name(self) -> str:
        return self.name

    def get_current(self) -> bool:
        return self.current

    def get_description(self) -> str:
        return self.text

    def get_dockerendpoint(self) -> str:
        return self.host

    def get_error(self) -> str:
        return units.ellipsis(self.error.replace("\n", " "), ERROR_SHOWN)


def _row(ctx: Context, name: str, current: str) -> ContextLine:
    try:
        meta, _ = _read(ctx, name)
        text = DEFAULT_TEXT if name == DEFAULT else contexts.description(meta)
        host = str(contexts.docker_endpoint(meta).get("Host") or "")
    except WherryError as e:
        return ContextLine(name, current=name == current, error=e.message)
    return ContextLine(name, current=name == current, text=text, host=host)


def listing(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.render.order import natural

    layout = "{{.Name}}" if options.on("quiet") else options.text("format") or "table"
    current = discovery.current(ctx.wanted, os.environ, ctx.config_dir)
    damaged: list[str] = []
    names = {DEFAULT, current, *ContextDirectory(ctx.config_dir).names(damaged.append)}
    rows = [_row(ctx, name, current) for name in sorted(names, key=natural)]
    table.show(ctx, rows, layout, default=ContextLine.TABLE, headers=ContextLine.HEADERS)
    for problem in damaged:
        ctx.complain(indented(problem))
    _warn(ctx, "a context")
    return 1 if damaged else 0


def _warn(ctx: Context, what: str) -> None:
    variable = discovery.host_variable(os.environ)
    if variable:
        ctx.complain(
            f"Warning: {variable} environment variable overrides the active context. To use {what}, either "
            f"set the global --context flag, or unset {variable} environment variable."
        )


def show(ctx: Context, options: Options, args: list[str]) -> int:
    ctx.say(discovery.current(ctx.wanted, os.environ, ctx.config_dir))
    return 0


def inspect(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.inspect import show as show_all

    names = args or [discovery.current(ctx.wanted, os.environ, ctx.config_dir)]
    return show_all(ctx, names, options.text("format"), lambda name: _inspected(ctx, name))


def _inspected(ctx: Context, name: str) -> Object:
    store = ContextDirectory(ctx.config_dir)
    meta, material = _read(ctx, name)
    kept = name != DEFAULT
    return {
        "Name": name,
        "Metadata": meta.get("Metadata") or {},
        "Endpoints": meta.get("Endpoints") or {},
        "TLSMaterial": {endpoint: sorted(files) for endpoint, files in material.items()},
        "Storage": {
            "MetadataPath": store.meta_directory(name) if kept else IN_MEMORY,
            "TLSPath": store.tls_directory(name) if kept else IN_MEMORY,
        },
    }


# ---- making and changing -----------------------------------------------------------------------------------


def _endpoint(ctx: Context, settings: dict[str, str]) -> tuple[Object, dict[str, bytes]]:
    """The docker endpoint that ``--docker`` describes, and its TLS files."""
    try:
        if settings.get("from"):
            meta, material = _read(ctx, settings["from"])
            return contexts.docker_endpoint(meta), material.get(DOCKER, {})
        return contexts.from_settings(settings)
    except WherryError as e:
        raise type(e)(f"unable to create docker endpoint config: {e.message}") from e


def create(ctx: Context, options: Options, args: list[str]) -> int:
    name, source = args[0], options.text("from")
    store = ContextDirectory(ctx.config_dir)
    contexts.check_name(name)
    if store.exists(name):
        raise Failure(f'context "{name}" already exists')
    if source and options.given("docker"):
        raise Failure("cannot use --docker flag when --from is set")
    material: Material = {}
    if options.given("docker"):
        endpoint, files = _endpoint(ctx, options.pairs("docker"))
        meta: Object = {"Metadata": {}, "Endpoints": {DOCKER: endpoint}}
        material = {DOCKER: files} if files else {}
    else:
        source = source or discovery.current(ctx.wanted, os.environ, ctx.config_dir)
        meta, material = _read(ctx, source)
        meta = {**meta, "Metadata": {**(meta.get("Metadata") or {})}}
        if source == DEFAULT:
            meta["Metadata"]["Description"] = DEFAULT_TEXT
    if options.text("description"):
        meta["Metadata"]["Description"] = options.text("description")
    store.save(name, {"Name": name, **meta}, material, new=True)
    return _done(ctx, name, "created")


def _done(ctx: Context, name: str, what: str) -> int:
    ctx.say(name)
    ctx.complain(f'Successfully {what} context "{name}"')
    return 0


def update(ctx: Context, options: Options, args: list[str]) -> int:
    name = args[0]
    contexts.check_name(name)
    store = ContextDirectory(ctx.config_dir)
    meta, material = store.read(name), store.tls(name)
    if options.text("description"):
        meta["Metadata"] = {**(meta.get("Metadata") or {}), "Description": options.text("description")}
    if options.given("docker"):
        endpoint, files = _endpoint(ctx, options.pairs("docker"))
        meta["Endpoints"] = {**(meta.get("Endpoints") or {}), DOCKER: endpoint}
        material.pop(DOCKER, None)
        material |= {DOCKER: files} if files else {}
    store.save(name, meta, material, new=False)
    return _done(ctx, name, "updated")


def use(ctx: Context, options: Options, args: list[str]) -> int:
    name = args[0]
    if name != DEFAULT:
        ContextDirectory(ctx.config_dir).read(name)
    contexts.use(ctx.config_dir, name)
    ctx.say(name)
    ctx.complain(f'Current context is now "{name}"')
    if name != DEFAULT:
        _warn(ctx, f'"{name}"')
    return 0


def remove(ctx: Context, options: Options, args: list[str]) -> int:
    current = discovery.current(ctx.wanted, os.environ, ctx.config_dir)
    problems = []
    for name in args:
        try:
            _remove_one(ctx, name, current, force=options.on("force"))
        except WherryError as e:
            problems.append(e.message)
        else:
            ctx.say(name)
    for problem in problems:
        ctx.complain(indented(problem))
    return 1 if problems else 0


def _remove_one(ctx: Context, name: str, current: str, *, force: bool) -> None:
    store = ContextDirectory(ctx.config_dir)
    if name == DEFAULT:
        raise InvalidArgument('context "default" cannot be removed')
    if not force and not os.path.isdir(store.meta_directory(name)):
        raise NotFound(f'context "{name}" does not exist')
    if not force and name == current:
        raise InvalidArgument(f'context "{name}" is in use, set -f flag to force remove')
    if ctx.config.get("currentContext") == name:
        contexts.use(ctx.config_dir, DEFAULT)
    store.remove(name)


# ---- to and from files -------------------------------------------------------------------------------------


def export(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.client import contextfile

    name = args[0]
    if name != DEFAULT:
        contexts.check_name(name)
    path = args[1] if len(args) > 1 else f"{name}.dockercontext"
    meta, material = _read(ctx, name)
    data = contextfile.export({**meta, "Name": name}, material)
    if path == "-":
        if on_terminal(1):
            raise Failure("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.flush()
        write_all(1, data)
        return 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise Failure(f"open {path}: {(e.strerror or '').lower()}") from e
    try:
        write_all(descriptor, data)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    ctx.complain(f'Written file "{safe(path)}"')
    return 0


def import_(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.client import contextfile

    name, path = args
    store = ContextDirectory(ctx.config_dir)
    contexts.check_name(name)
    if store.exists(name):
        raise Failure(f'context "{name}" already exists')
    if path == "-":
        data = contextfile.read(0)
    else:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise Failure(f"open {path}: {(e.strerror or '').lower()}") from e
        try:
            data = contextfile.read(descriptor)
        finally:
            os.close(descriptor)
    meta, material = contextfile.parse(data)
    store.save(name, meta, material, new=True)
    return _done(ctx, name, "imported")


_DESCRIPTION = Flag("description", "", STRING, "Description of the context")
_DOCKER = Flag("docker", "", SETTINGS, "set the docker endpoint", shown="[]")
_HOW = (
    "\n\nDocker endpoint config:\n\n"
    "NAME                DESCRIPTION\n"
    "from                Copy named context's Docker endpoint configuration\n"
    "host                Docker endpoint on which to connect (unix://, tcp://, ssh://)\n"
    "ca                  Trust certs signed only by this CA\n"
    "cert                Path to TLS certificate file\n"
    "key                 Path to TLS key file\n"
    "skip-tls-verify     Skip TLS certificate validation\n\n"
    "Example:\n\n"
    '$ wherry context {} my-context --description "some description" \\\n'
    '    --docker "host=tcp://myserver:2376,ca=ca.pem,cert=cert.pem,key=key.pem"'
)
CREATE = Command(
    "[OPTIONS] CONTEXT",
    create,
    (
        _DESCRIPTION,
        _DOCKER,
        Flag("from", "", STRING, "create context from a named context", complete="context"),
    ),
    least=1,
    most=1,
    description="Create a context" + _HOW.format("create"),
)
UPDATE = Command(
    "[OPTIONS] CONTEXT",
    update,
    (_DESCRIPTION, _DOCKER),
    least=1,
    most=1,
    complete="context none",
    description="Update a context" + _HOW.format("update"),
)
LS = Command("[OPTIONS]", listing, (FORMAT_TABLE, Flag("quiet", "q", BOOL, "Only show context names")))
SHOW = Command("", show)
USE = Command("CONTEXT", use, least=1, most=1, complete="context none")
INSPECT = Command("[OPTIONS] [CONTEXT] [CONTEXT...]", inspect, (FORMAT,), most=UNLIMITED, complete="context")
RM = Command(
    "CONTEXT [CONTEXT...]",
    remove,
    (Flag("force", "f", BOOL, "Force the removal of a context in use"),),
    least=1,
    most=UNLIMITED,
    complete="context",
)
EXPORT = Command("CONTEXT [FILE|-]", export, least=1, most=2, complete="context file none")
IMPORT = Command("CONTEXT FILE|-", import_, least=2, most=2, complete="none file none")
