"""``wherry compose config``: print the resolved project."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.flags import DRY_RUN
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.client.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.project import Project


def run(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import loading, selecting

    session = ComposeSession(ctx, options)
    how = loading.How(
        interpolate=not options.on("no-interpolate"),
        normalise=not options.on("no-normalize"),
        consistent=not options.on("no-consistency") and not options.on("no-interpolate"),
        resolve_paths=not options.on("no-path-resolution"),
    )
    if options.on("variables") or options.on("environment"):
        return _variables(session, options)
    project = session.load(how)
    if options.on("profiles"):
        return _print(
            options, sorted({p for s in project.all_services.values() for p in s.get("profiles") or ()})
        )
    if not how.interpolate:
        project.services.update(project.disabled)
    selecting.choose(project, args)
    if options.on("quiet"):
        return 0
    if not session.flags.on("all-resources") and how.interpolate:
        selecting.prune_resources(project)
    names = _names(project, options)
    if names is not None:
        return _print(options, names)
    if options.given("hash"):
        return _hashes(options, project)
    if options.on("resolve-image-digests") or options.on("lock-image-digests"):
        project = _pin(session, project, lock=options.on("lock-image-digests"))
    elif not options.on("no-env-resolution") and how.interpolate:
        from wherry.compose.defaults import with_environment

        services = {name: with_environment(project, one) for name, one in project.services.items()}
        project = project.with_services(services)
    return _whole(options, project)


def _whole(options: Options, project: Project) -> int:
    from wherry.compose import output

    form = options.text("format") or "yaml"
    if form not in ("yaml", "json"):
        raise Failure(f'unsupported format "{form}": yaml or json')
    text = output.as_json(project) + "\n" if form == "json" else output.as_yaml(project)
    # The output is a Compose file again, so each remaining dollar must be doubled.
    _write(options, text if options.on("no-interpolate") else text.replace("$", "$$"))
    return 0


def _names(project: Project, options: Options) -> list[str] | None:
    """The output of ``--services`` and similar flags; None if none of them was given."""
    from wherry.compose.project import image_of

    if options.on("services"):
        return [name for level in project.levels(project.services) for name in level]
    if options.on("volumes"):
        return sorted(project.volumes)
    if options.on("networks"):
        return sorted(project.networks)
    if options.on("models"):
        return sorted(project.models)
    if options.on("images"):
        return [image_of(project, name) for name in project.services]
    return None


def _hashes(options: Options, project: Project) -> int:
    from wherry.compose import hashing

    wanted = options.text("hash")
    names = sorted(project.services) if wanted == "*" else wanted.split(",")
    for name in names:
        if name not in project.services:
            raise Failure(f"no such service: {name}" + (": disabled" if name in project.disabled else ""))
    return _print(options, [f"{name} {hashing.of_service(project.service(name))}" for name in sorted(names)])


def _variables(session: ComposeSession, options: Options) -> int:
    from wherry.compose import finding, including, naming
    from wherry.compose.reading import ProjectReader

    found = finding.find(session.wanted)
    reader = ProjectReader(found.environment, fetch=session.wanted.fetch)
    if options.on("environment"):
        found.environment["COMPOSE_PROJECT_NAME"] = naming.name_of(session.wanted, found, reader.documents)
        return _print(options, [f"{name}={value}" for name, value in sorted(found.environment.items())])
    variables = reader.variables(including.files_of(reader, found.files, found.directory))
    rows = ["\t".join(("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"))]
    rows += [
        "\t".join((name, str(required).lower(), default, other))
        for name, (required, default, other) in sorted(variables.items())
    ]
    from wherry.cli.render import table

    _write(options, table.align(rows, 20))
    return 0


def _pin(session: ComposeSession, project: Project, *, lock: bool) -> Project:
    """Add to every image its digest, from its registry or from this machine.

    :param lock: leave everything else out of the project.
    """
    from wherry.compose.pinning import pinned

    images = {
        name: pinned(session.ctx.api, session.ctx.config_dir, one) for name, one in project.services.items()
    }
    for name, image in images.items():
        if image:
            project.services[name]["image"] = image
    if lock:
        from wherry.compose.places import mapping

        project = project.with_services(
            {
                name: mapping({"image": one["image"]}, one.at)
                for name, one in project.services.items()
                if images[name]
            }
        )
        for section in ("networks", "volumes", "secrets", "configs", "models", "extensions"):
            getattr(project, section).clear()
    return project


def _print(options: Options, lines: list[str]) -> int:
    _write(options, "".join(line + "\n" for line in lines))
    return 0


def _write(options: Options, text: str) -> None:
    import os

    data = text.encode("utf-8", "surrogateescape")
    path = options.text("output")
    if not path:
        write_all(1, data)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as e:
        raise Failure(f"open {path}: {(e.strerror or '').lower()}") from None
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


CONFIG = Command(
    "[OPTIONS] [SERVICE...]",
    run,
    (
        DRY_RUN,
        Flag("environment", "", BOOL, "Print environment used for interpolation."),
        Flag("format", "", STRING, "Format the output. Values: [yaml | json]", complete="yaml json"),
        Flag("hash", "", STRING, "Print the service config hash, one per line."),
        Flag("images", "", BOOL, "Print the image names, one per line."),
        Flag("lock-image-digests", "", BOOL, "Produces an override file with image digests"),
        Flag("models", "", BOOL, "Print the model names, one per line."),
        Flag("networks", "", BOOL, "Print the network names, one per line."),
        Flag("no-consistency", "", BOOL, "Don't check model consistency"),
        Flag("no-env-resolution", "", BOOL, "Don't resolve service env files"),
        Flag("no-interpolate", "", BOOL, "Don't interpolate environment variables"),
        Flag("no-normalize", "", BOOL, "Don't normalize compose model"),
        Flag("no-path-resolution", "", BOOL, "Don't resolve file paths"),
        Flag("output", "o", STRING, "Save to file (default to stdout)", complete="file"),
        Flag("profiles", "", BOOL, "Print the profile names, one per line."),
        Flag("quiet", "q", BOOL, "Only validate the configuration, don't print anything"),
        Flag("resolve-image-digests", "", BOOL, "Pin image tags to digests"),
        Flag("services", "", BOOL, "Print the service names, one per line."),
        Flag("variables", "", BOOL, "Print model variables and default values."),
        Flag("volumes", "", BOOL, "Print the volume names, one per line."),
    ),
    most=UNLIMITED,
)
