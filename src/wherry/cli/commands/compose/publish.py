"""``wherry compose publish``: send a project to a registry, for ``-f oci://…`` and ``include``."""

from __future__ import annotations

import os

from wherry.cli.command import Command, Failure
from wherry.cli.composing.flags import DRY_RUN, YES
from wherry.cli.composing.session import ComposeSession
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options
    from wherry.compose.artifact import ProjectFile
    from wherry.compose.project import Project


_LEAK = (
    "To avoid leaking sensitive data, you must either explicitly allow the sending of environment variables "
    "by using the --with-env flag,\nor remove sensitive data from your Compose configuration"
)


def run(ctx: Context, options: Options, args: list[str]) -> int:
    from wherry.compose import artifact

    version = options.text("oci-version") or "1.1"
    if version not in ("1.0", "1.1"):
        raise Failure(f'unsupported OCI version "{version}": 1.0 or 1.1')
    if options.on("app"):
        raise Failure("publish --app is not supported: push the images, and publish without --app")
    target = artifact.name_of(args[0])
    with ComposeSession(ctx, options) as session:
        project = session.load()
        _check(session, options, project)
        files = _files(session, options, project)
        with session.display() as display:
            display.say(target, "publishing")
            if not session.dry_run:
                with session.sessions.lend() as api:
                    artifact.publish(api, target, files, ctx.config_dir, old=version == "1.0")
            display.say(target, "published")
    return 0


def _check(session: ComposeSession, options: Options, project: Project) -> None:
    """:raises Failure: something in the project would not work elsewhere, or should not be seen there."""
    services = project.all_services
    built = [name for name, one in services.items() if one.get("build") and not one.get("image")]
    if built:
        names = "".join(f'\n  - "{name}"' for name in built)
        raise Failure(
            "your Compose stack cannot be published as it only contains a build section for service(s):"
            + names
        )
    if not options.on("with-env"):
        told = []
        for name, one in services.items():
            if one.get("env_file"):
                told.append(f'service "{name}" has env_file declared.')
            if one.get("environment"):
                told.append(f'service "{name}" has environment variable(s) declared.')
        if told:
            raise Failure("\n".join([*told, _LEAK]))
    binds = [
        f"  {name}: {volume.get('source')}"
        for name, one in services.items()
        for volume in one.get("volumes") or ()
        if volume.get("type") == "bind"
    ]
    if binds and not options.on("yes"):
        session.ctx.complain("These bind mounts are published as they are written, without their content:")
        for line in binds:
            session.ctx.complain(line)
        if not session.confirm("Publish these bind mounts?"):
            raise Failure("nothing was published: answer the question, or give -y")


def _files(session: ComposeSession, options: Options, project: Project) -> list[ProjectFile]:
    """One Compose file, with what it extends and includes, and the variables as they are written; and the
    files of ``env_file``."""
    import hashlib

    from wherry.client.files import read_file
    from wherry.compose import artifact, loading, output, pinning
    from wherry.compose.reading import ProjectReader

    how = loading.How(interpolate=False, normalise=False, consistent=False, resolve_paths=False)
    raw = session.load(how, quiet=True)
    raw.services.update(raw.disabled)
    files = []
    for name, service in raw.services.items():
        resolved = project.all_services[name].get("env_file") or ()
        for written, found in zip(service.get("env_file") or (), resolved, strict=False):
            path = found["path"]
            if not os.path.isfile(path):
                continue  # not required, or the loader would have refused it
            written["path"] = f"{hashlib.sha256(path.encode()).hexdigest()}.env"
            data = read_file(path, most=1 << 20)
            files.append(artifact.ProjectFile(artifact.ENV_FILE, written["path"], data))
    if options.on("resolve-image-digests"):
        for name, service in raw.services.items():
            image = pinning.pinned(session.ctx.api, session.ctx.config_dir, project.all_services[name])
            if image:
                service["image"] = image
    text = output.as_yaml(raw)
    if not any("name" in one for file in raw.files for one in ProjectReader({}).documents(file)):
        text = text.partition("\n")[2]  # nobody has named it: it is called as its directory is, elsewhere too
    return [artifact.ProjectFile(artifact.FILE, "compose.yaml", text.encode()), *files]


PUBLISH = Command(
    "[OPTIONS] REPOSITORY[:TAG]",
    run,
    (
        Flag("app", "", BOOL, "Published compose application (includes referenced images)"),
        DRY_RUN,
        Flag(
            "oci-version",
            "",
            STRING,
            "OCI image/artifact specification version (automatically determined by default)",
        ),
        Flag("resolve-image-digests", "", BOOL, "Pin image tags to digests"),
        Flag("with-env", "", BOOL, "Include environment variables in the published OCI artifact"),
        YES,
    ),
    least=1,
    most=1,
)
