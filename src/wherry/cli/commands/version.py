"""``wherry version``."""

from __future__ import annotations

import os

from wherry import __version__
from wherry.cli.command import Command, Failure
from wherry.cli.console import indented, one_line
from wherry.cli.daemons.several import ask, member
from wherry.cli.grammar.common import FORMAT
from wherry.client import system
from wherry.client.api import VERSION as API_VERSION
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def run(ctx: Context, options: Options, args: list[str]) -> int:
    layout = options.text("format")
    if layout:
        from wherry.cli.render import table

        table.compile_format("{{json .}}" if layout == "json" else layout)
    if ctx.several:
        return _of_several(ctx, layout)
    problem = ""
    server: dict[str, Any] | None = None
    try:
        server = system.version(ctx.api)
        spoken = ctx.api.version
    except WherryError as e:
        problem, spoken = e.message, API_VERSION
    client = _client(spoken, ctx)
    if layout:
        _formatted(ctx, layout, {"Client": client, "Server": server})
    else:
        ctx.write(_text(client, server))
    if problem:
        raise Failure(indented(problem))
    return 0


def _of_several(ctx: Context, layout: str) -> int:
    from wherry.cli.render import table
    from wherry.cli.render.daemonrows import VersionLine

    answers = ask(ctx, lambda one: (system.version(one.api), one.api.version))
    if layout:
        for answer in answers:
            server, spoken = answer.value
            client = _client(spoken, member(ctx, answer.name))
            _formatted(ctx, layout, {"Context": answer.name, "Client": client, "Server": server})
    else:
        rows = [VersionLine(answer.value[0]).of(answer) for answer in answers]
        table.show(ctx, rows, "table", default=VersionLine.TABLE, headers=VersionLine.HEADERS)
    return answers.finish(ctx)


def _client(spoken: str, ctx: Context) -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "Version": __version__,
        "ApiVersion": spoken,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "BuildTime": "",
        "Context": _context_name(ctx),
    }


def _context_name(ctx: Context) -> str:
    try:
        return ctx.find_endpoint()[0].context
    except WherryError:
        return ctx.wanted.context or "default"


def _formatted(ctx: Context, layout: str, versions: dict[str, Any]) -> None:
    from wherry.cli.render import table, template

    text = table.render(template.compile("{{json .}}" if layout == "json" else layout), versions)
    ctx.raw(text)


def _text(client: dict[str, Any], server: dict[str, Any] | None) -> str:
    api = client["ApiVersion"]
    if api != API_VERSION:
        api += f" (downgraded from {API_VERSION})"
    lines = [
        "Client: wherry",
        f" Version:           {client['Version']}",
        f" API version:       {api}",
        f" OS/Arch:           {client['Os']}/{client['Arch']}",
        f" Context:           {client['Context']}",
    ]
    if server is not None:
        lines += _server_lines(server)
    return "\n".join(map(one_line, lines)) + "\n"


def _server_lines(server: dict[str, Any]) -> list[str]:
    platform = (server.get("Platform") or {}).get("Name") or ""
    lines = ["", "Server:" + (f" {platform}" if platform else "")]
    components = server.get("Components") or [
        {"Name": "Engine", "Version": server.get("Version", ""), "Details": _engine_details(server)}
    ]
    for component in components:
        details = component.get("Details") or {}
        lines += [f" {component.get('Name', '')}:", f"  Version:          {component.get('Version', '')}"]
        if component.get("Name") == "Engine":
            lines += _engine_lines(details)
        else:
            lines += [f"  {name + ':':<18}{details[name]}" for name in sorted(details)]
    return lines


def _engine_details(server: dict[str, Any]) -> dict[str, Any]:
    return {
        key: server.get(key, "")
        for key in ("MinAPIVersion", "GoVersion", "GitCommit", "Os", "Arch", "BuildTime")
    } | {"ApiVersion": server.get("ApiVersion", "")}


def _engine_lines(details: dict[str, Any]) -> list[str]:
    get = details.get
    minimum = f" (minimum version {get('MinAPIVersion')})" if get("MinAPIVersion") else ""
    lines = [f"  API version:      {get('ApiVersion', '')}{minimum}"]
    named = (("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime"))
    lines += [f"  {title + ':':<18}{get(key)}" for title, key in named if get(key)]
    lines.append(f"  OS/Arch:          {get('Os', '')}/{get('Arch', '')}")
    lines.append(f"  Experimental:     {get('Experimental') or 'false'}")
    return lines


VERSION = Command("[OPTIONS]", run, (FORMAT,), several=True)
