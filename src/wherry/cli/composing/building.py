"""Build services' images with this client's ``build``: side by side on one screen, a build after those whose
images it uses.
"""

from __future__ import annotations

from wherry.cli.command import Failure
from wherry.cli.composing import delegate
from wherry.compose import buildspec, labels
from wherry.compose.places import ComposeError
from wherry.compose.project import image_of
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.cli.building.screen import BuildScreen
    from wherry.cli.command import Command, Context
    from wherry.cli.composing.session import ComposeSession
    from wherry.client.api import Api
    from wherry.compose.buildspec import BuildChoices
    from wherry.compose.project import Project

    Object = dict[str, Any]


def build(session: ComposeSession, project: Project, names: Sequence[str], asked: BuildChoices) -> None:
    """Build the services' images.

    :raises Failure: a build fails; what it printed says why. Builds that do not need it go on.
    """
    order = in_order(project, names)
    lines = {name: arguments(project, name, asked, session) for name in order}
    if session.dry_run:
        for name in order:
            session.ctx.complain(f"DRY-RUN MODE -  {image_of(project, name)}  Building")
        return
    if len(order) < 2 or asked.check:
        for name in order:
            _one(session.ctx, name, lines[name], None)
        return
    _together(session, project, lines)


def _together(session: ComposeSession, project: Project, lines: Mapping[str, list[str]]) -> None:
    from wherry.cli.building.build import choose_screen
    from wherry.cli.building.together import CommonScreen
    from wherry.compose.work import in_order as run_in_order

    options, _ = delegate.parsed(_command(), next(iter(lines.values())))
    screen = CommonScreen(choose_screen(options, f"{len(lines)} images of {project.name}"))
    parts = {name: screen.part(name) for name in lines}

    def one(_api: Api, name: str) -> None:
        ctx = session.ctx.derived()
        try:
            _one(ctx, name, lines[name], parts[name])
        except Failure as e:
            raise ComposeError(e.text) from e
        finally:
            ctx.close()

    outcome = "CANCELED"
    try:
        run_in_order(session.sessions, {name: _needs(project, name) for name in lines}, one)
        outcome = "FINISHED"
    except WherryError:
        outcome = "FINISHED"
        raise
    finally:
        screen.close(outcome)


def _command() -> Command:
    from wherry.cli.commands.build import BUILD

    return BUILD


def _one(ctx: Context, name: str, argv: Sequence[str], screen: BuildScreen | None) -> None:
    from wherry.cli.building.build import build_in

    options, args = delegate.parsed(_command(), argv)
    try:
        code = build_in(ctx, options, args[0], screen=screen)
    except Failure as e:
        raise Failure(f"service {name}: {e.text}", e.code) from e
    if code:
        raise Failure(f"service {name}: its build failed", code)


def in_order(project: Project, names: Sequence[str]) -> list[str]:
    """Sort the services, so that images that other builds use are built first."""
    left, done = list(names), list[str]()
    while left:
        ready = [name for name in left if not set(_needs(project, name)) & set(left) - {name}]
        if not ready:
            raise ComposeError(f"the builds of {', '.join(left)} need each other")
        done += ready
        left = [name for name in left if name not in ready]
    return done


def _needs(project: Project, name: str) -> list[str]:
    contexts = (project.services[name].get("build") or {}).get("additional_contexts") or {}
    return [one.removeprefix("service:") for one in contexts.values() if one.startswith("service:")]


def arguments(project: Project, name: str, asked: BuildChoices, session: ComposeSession) -> list[str]:
    """The command line of ``wherry build`` for a service."""
    service = project.services[name]
    spec = service["build"]
    argv = [f"--tag={image_of(project, name)}", *(f"--tag={tag}" for tag in spec.get("tags") or ())]
    if spec.get("dockerfile_inline"):
        argv.append(f"--file={_inline(session, spec['dockerfile_inline'])}")
    elif spec.get("dockerfile"):
        argv.append(f"--file={buildspec.dockerfile(spec)}")
    argv += _lists(project, spec)
    for key, text in labels.of_image(project.name, name).items():
        argv.append(f"--label={key}={text}")
    values = {
        "isolation": spec.get("isolation"),
        "network": spec.get("network"),
        "target": spec.get("target"),
        "shm-size": spec.get("shm_size"),
        "no-cache": asked.no_cache or bool(spec.get("no_cache")),
        "pull": asked.pull or bool(spec.get("pull")),
        "push": asked.push,
        "quiet": asked.quiet,
        "check": asked.check,
        "memory": asked.memory,
        "provenance": asked.provenance or spec.get("provenance"),
        "sbom": asked.sbom or spec.get("sbom"),
        "progress": _progress(session),
    }
    for flag, value in values.items():
        argv += delegate.flag(flag, value)
    argv += delegate.flag("platform", ",".join(buildspec.platforms(service)))
    if spec.get("privileged"):
        argv.append("--allow=security.insecure")
    for text in [asked.ssh] if asked.ssh else _ssh(spec):
        argv.append(f"--ssh={text}")
    argv += [f"--build-arg={text}" for text in asked.arguments]
    return [*argv, spec["context"]]


def _progress(session: ComposeSession) -> str:
    given = session.flags.text("progress")
    return {"json": "rawjson"}.get(given, given)


def _inline(session: ComposeSession, text: str) -> str:
    """A temporary file with the Dockerfile; it is removed when this process ends."""
    import atexit
    import os
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="wherry-", suffix=".Dockerfile")
    atexit.register(os.unlink, path)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _lists(project: Project, spec: Any) -> list[str]:
    argv: list[str] = []
    for key, flag in (("args", "build-arg"), ("labels", "label")):
        argv += [f"--{flag}={name}={value}" for name, value in (spec.get(key) or {}).items()]
    for key, flag in (("cache_from", "cache-from"), ("cache_to", "cache-to"), ("entitlements", "allow")):
        argv += [f"--{flag}={one}" for one in spec.get(key) or ()]
    hosts = spec.get("extra_hosts") or {}
    argv += [f"--add-host={name}:{address}" for name in hosts for address in hosts[name]]
    for name, value in (spec.get("additional_contexts") or {}).items():
        if value.startswith("service:"):
            value = f"docker-image://{image_of(project, value.removeprefix('service:'))}"
        argv.append(f"--build-context={name}={value}")
    for one in spec.get("secrets") or ():
        argv.append(f"--secret={_secret(project, one)}")
    for name, limit in (spec.get("ulimits") or {}).items():
        soft = limit.get("single", limit.get("soft"))
        argv.append(f"--ulimit={name}={soft}:{limit.get('single', limit.get('hard'))}")
    return argv


def _secret(project: Project, one: Any) -> str:
    definition = project.secrets[one["source"]]
    name = one["source"]
    target = str(one.get("target") or "").rpartition("/")[2]
    if definition.get("environment"):
        return f"id={target or name},env={definition['environment']}"
    if definition.get("file"):
        return f"id={target or name},src={definition['file']}"
    raise ComposeError(f"build secret {name} must be a file or an environment variable")


def _ssh(spec: Any) -> list[str]:
    ssh = spec.get("ssh") or {}
    return [name + (f"={path}" if path else "") for name, path in ssh.items()]
