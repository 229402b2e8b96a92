"""``wherry compose build|pull|push``."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, Failure
from wherry.cli.composing.flags import DRY_RUN
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, LIST, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.buildspec import BuildChoices
    from wherry.compose.project import Project


def build(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.composing import building
    from wherry.compose.buildspec import BuildChoices

    if options.text("builder") not in ("", "default"):
        raise Failure(f"no builder {options.text('builder')!r} found: the daemon builds (default)")
    with ComposeSession(ctx, options) as session:
        project = session.project(args, dependencies=options.on("with-dependencies") or not args)
        names = [name for name, one in project.services.items() if one.get("build")]
        if args and not options.on("with-dependencies"):
            names = [name for name in names if name in args]
        if not names:
            ctx.complain("No services to build")
            return 0
        asked = BuildChoices(
            quiet=options.on("quiet"),
            no_cache=options.on("no-cache"),
            pull=options.on("pull"),
            push=options.on("push"),
            check=options.on("check"),
            arguments=options.many("build-arg"),
            ssh=options.text("ssh"),
            provenance=options.text("provenance"),
            sbom=options.text("sbom"),
            memory=options.text("memory"),
        )
        if options.on("print"):
            return _print(ctx, project, names, asked)
        building.build(session, project, names, asked)
        return 0


def _print(ctx: Context, project: Project, names: list[str], asked: BuildChoices) -> int:
    from wherry.cli.building.flags import environment_pairs
    from wherry.compose import baking, gojson

    made = baking.definition(project, names, asked, environment_pairs(asked.arguments))
    ctx.write(gojson.indented(made) + "\n")
    return 0


def pull(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import pulling
    from wherry.compose.project import image_of
    from wherry.compose.work import Failures

    policy = options.text("policy")
    if policy not in ("", "always", "missing"):
        raise Failure(f'--policy must be always or missing, not "{policy}"')
    with ComposeSession(ctx, options) as session:
        project = session.project(args, dependencies=options.on("include-deps") or not args)
        names = []
        with session.display() as display:
            report = session.report(display)
            for name, service in project.services.items():
                if not service.get("image"):
                    display.say(name, "Skipped", "No image to be pulled")
                elif service.get("build") and (
                    options.on("ignore-buildable") or service.get("pull_policy") == "build"
                ):
                    display.say(name, "Skipped", "Image can be built")
                elif service.get("pull_policy") == "never":
                    display.say(name, "Skipped", "Its pull policy is never")
                elif (policy or service.get("pull_policy")) == "missing" and pulling.local(
                    ctx.api, image_of(project, name)
                ):
                    display.say(name, "Skipped", "Image is already present locally")
                else:
                    names.append(name)
            failed = pulling.pull(
                session.sessions, project, names, report, config_dir=ctx.config_dir, dry_run=session.dry_run
            )
        buildable = [name for name in failed if project.services[name].get("build")]
        for name in buildable:
            session.warn(
                f"{failed.pop(name).message}: its image must be built from source by `wherry compose "
                f"build {name}`"
            )
        if not failed:
            return 0
        if options.on("ignore-pull-failures"):
            for error in failed.values():
                session.warn(error.message)
            return 0
        raise Failures(list(failed.values()))


def push(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.cli.commands.registry import PUSH
    from wherry.cli.composing import delegate
    from wherry.compose.project import image_of
    from wherry.errors import WherryError

    session = ComposeSession(ctx, options)
    project = session.project(args, dependencies=options.on("include-deps") or not args)
    code = 0
    for name, service in project.services.items():
        if not service.get("build") or not service.get("image"):
            continue
        for image in dict.fromkeys([image_of(project, name), *(service["build"].get("tags") or ())]):
            if session.dry_run:
                ctx.complain(f"DRY-RUN MODE -  {name}  Pushing {image}")
                continue
            argv = delegate.flag("quiet", options.on("quiet"))
            try:
                code = max(code, delegate.run(ctx, PUSH, [*argv, image]))
            except (WherryError, Failure) as e:
                text = e.text if isinstance(e, Failure) else e.message
                if not options.on("ignore-push-failures"):
                    raise Failure(f"service {name}: {text}") from e
                session.warn(f"service {name}: {text}")
    return code


BUILD = Command(
    "[OPTIONS] [SERVICE...]",
    build,
    (
        Flag("build-arg", "", LIST, "Set build-time variables for services"),
        Flag("builder", "", STRING, "Set builder to use; there is one, the daemon", hidden=True),
        Flag("check", "", BOOL, "Check build configuration"),
        DRY_RUN,
        Flag("memory", "m", STRING, "Set memory limit for the build container"),
        Flag("no-cache", "", BOOL, "Do not use cache when building the image"),
        Flag("print", "", BOOL, "Print equivalent bake file"),
        Flag("provenance", "", STRING, "Add a provenance attestation"),
        Flag("pull", "", BOOL, "Always attempt to pull a newer version of the image"),
        Flag("push", "", BOOL, "Push service images"),
        Flag("quiet", "q", BOOL, "Suppress the build output"),
        Flag("sbom", "", STRING, "Add a SBOM attestation"),
        Flag("ssh", "", STRING, "Set SSH authentications used when building service images"),
        Flag("with-dependencies", "", BOOL, "Also build dependencies (transitively)"),
    ),
    most=UNLIMITED,
)
PULL = Command(
    "[OPTIONS] [SERVICE...]",
    pull,
    (
        DRY_RUN,
        Flag("ignore-buildable", "", BOOL, "Ignore images that can be built"),
        Flag("ignore-pull-failures", "", BOOL, "Pull what it can and ignores images with pull failures"),
        Flag("include-deps", "", BOOL, "Also pull services declared as dependencies"),
        Flag("policy", "", STRING, 'Apply pull policy ("missing"|"always")', complete="missing always"),
        Flag("quiet", "q", BOOL, "Pull without printing progress information"),
    ),
    most=UNLIMITED,
)
PUSH = Command(
    "[OPTIONS] [SERVICE...]",
    push,
    (
        DRY_RUN,
        Flag("ignore-push-failures", "", BOOL, "Push what it can and ignores images with push failures"),
        Flag("include-deps", "", BOOL, "Also push images of services declared as dependencies"),
        Flag("quiet", "q", BOOL, "Push without printing progress information"),
    ),
    most=UNLIMITED,
)
