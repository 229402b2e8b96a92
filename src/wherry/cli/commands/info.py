"""``wherry info``."""

from __future__ import annotations

from wherry import __version__
from wherry.cli.command import Command, Failure
from wherry.cli.console import indented, one_line
from wherry.cli.daemons.several import ask
from wherry.cli.grammar.common import FORMAT
from wherry.cli.render import gojson, template, units
from wherry.cli.render.table import compile_format
from wherry.client import system
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format")
    compiled = compile_format(layout) if layout and layout != "json" else None
    if ctx.several:
        return _of_several(ctx, layout, compiled)
    problem = ""
    info: Object = {}
    try:
        info = system.info(ctx.api)
    except WherryError as e:
        problem = e.message
    client = {"Debug": ctx.debug, "Version": __version__, "Context": _context(ctx)}
    if layout:
        _formatted(
            ctx, compiled, {**info, "ServerErrors": [problem] if problem else [], "ClientInfo": client}
        )
        return 1 if problem else 0
    ctx.say(f"Client:\n Version:    {client['Version']}\n Context:    {client['Context']}")
    ctx.say(f" Debug Mode: {_word(ctx.debug)}\n\nServer:")
    if problem:
        raise Failure(indented(problem))
    for line in server_lines(info):
        ctx.line(line)
    for warning in info.get("Warnings") or []:
        ctx.complain(one_line(str(warning)))
    return 0


def _of_several(ctx: Context, layout: str, compiled: template.Template | None) -> int:
    from wherry.cli.render import table
    from wherry.cli.render.daemonrows import InfoLine

    answers = ask(ctx, lambda one: system.info(one.api))
    if layout:
        for answer in answers:
            _formatted(ctx, compiled, {"Context": answer.name, **answer.value})
    else:
        rows = [InfoLine(answer.value).of(answer) for answer in answers]
        table.show(ctx, rows, "table", default=InfoLine.TABLE, headers=InfoLine.HEADERS)
    return answers.finish(ctx)


def _context(ctx: Context) -> str:
    try:
        return ctx.find_endpoint()[0].context
    except WherryError:
        return ctx.wanted.context or "default"


def _formatted(ctx: Context, compiled: template.Template | None, data: Object) -> None:
    if compiled is None:
        ctx.raw(gojson.compact(data))
        return
    from wherry.cli.render.table import render

    ctx.raw(render(compiled, data))


def _word(value: object) -> str:
    return "true" if value else "false"


def server_lines(info: Object) -> list[str]:
    """The daemon's part, in Docker's order and indentation."""
    lines = [f" Containers: {info.get('Containers', 0)}"]
    lines += [f"  {state}: {info.get('Containers' + state, 0)}" for state in ("Running", "Paused", "Stopped")]
    lines.append(f" Images: {info.get('Images', 0)}")
    for title, key in (("Server Version", "ServerVersion"), ("Storage Driver", "Driver")):
        lines.append(f" {title}: {info.get(key, '')}")
    lines += [f"  {pair[0]}: {pair[1]}" for pair in info.get("DriverStatus") or [] if len(pair) == 2]
    for title, key in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ):
        if info.get(key):
            lines.append(f" {title}: {info[key]}")
    return lines + _plugins(info) + _runtime(info) + _machine(info) + _settings(info)


def _plugins(info: Object) -> list[str]:
    plugins = info.get("Plugins") or {}
    kinds = ("Volume", "Network", "Authorization", "Log")
    lines = [f"  {kind}: {' '.join(plugins[kind])}" for kind in kinds if plugins.get(kind)]
    return [" Plugins:", *lines] if lines else []


def _runtime(info: Object) -> list[str]:
    lines = []
    if swarm := info.get("Swarm"):
        lines.append(f" Swarm: {swarm.get('LocalNodeState', 'inactive')}")
    lines.append(f" Runtimes: {' '.join(sorted(info.get('Runtimes') or {}))}")
    lines.append(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    lines.append(f" Init Binary: {info.get('InitBinary', '')}")
    for title, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        commit = (info.get(key) or {}).get("ID")
        if commit:
            lines.append(f" {title} version: {commit}")
    options = info.get("SecurityOptions") or []
    if options:
        lines.append(" Security Options:")
    for option in options:
        pairs = dict(part.partition("=")[::2] for part in str(option).split(","))
        lines.append(f"  {pairs.pop('name', option)}")
        lines += [f"   {key.capitalize()}: {value}" for key, value in pairs.items()]
    return lines


_DEBUG = (
    ("File Descriptors", "NFd"),
    ("Goroutines", "NGoroutines"),
    ("System Time", "SystemTime"),
    ("EventsListeners", "NEventsListener"),
)


def _machine(info: Object) -> list[str]:
    lines = []
    for title, key in (
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ):
        lines.append(f" {title}: {info.get(key, '')}")
    lines.append(f" Total Memory: {units.binary_size(int(info.get('MemTotal') or 0))}")
    lines.append(f" Name: {info.get('Name', '')}")
    lines.append(f" ID: {info.get('ID', '')}")
    lines.append(f" Docker Root Dir: {info.get('DockerRootDir', '')}")
    lines.append(f" Debug Mode: {_word(info.get('Debug'))}")
    if info.get("Debug"):
        lines += [f"  {title}: {info.get(key, '')}" for title, key in _DEBUG]
    return lines


def _settings(info: Object) -> list[str]:
    lines = []
    for title, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if info.get(key):
            lines.append(f" {title}: {info[key]}")
    if labels := info.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in labels)]
    lines.append(f" Experimental: {_word(info.get('ExperimentalBuild'))}")
    registries = info.get("RegistryConfig") or {}
    insecure = [n for n, r in sorted((registries.get("IndexConfigs") or {}).items()) if not r.get("Secure")]
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if mirrors := registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in mirrors)]
    lines.append(f" Live Restore Enabled: {_word(info.get('LiveRestoreEnabled'))}")
    if pools := info.get("DefaultAddressPools"):
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {pool.get('Base')}, Size: {pool.get('Size')}" for pool in pools]
    if firewall := (info.get("FirewallBackend") or {}).get("Driver"):
        lines.append(f" Firewall Backend: {firewall}")
    return lines


INFO = Command("[OPTIONS]", run, (FORMAT,), several=True)
