"""``wherry build``: the command and its flags; :mod:`wherry.cli.building` implements them."""

from __future__ import annotations

import os

from wherry.cli.command import Command, Failure
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, BYTES, INT, LABELS, LIST, STRING, STRINGS, SWAP_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def build(ctx: Context, options: Options, args: list[str]) -> int:
    if args[0] in ("history", "debug") and not os.path.isdir(args[0]):
        return _subcommand(ctx, options, args)
    if len(args) > 1:
        raise Failure(f"wherry: '{ctx.path}' requires 1 argument", 1)
    from wherry.cli.building.build import build_in

    return build_in(ctx, options, args[0])


def _subcommand(ctx: Context, options: Options, args: list[str]) -> int:
    """``build history [ID]`` and ``build debug PATH``, unless a directory has that name."""
    if args[0] == "debug":
        from wherry.cli.commands.builddebug import debug

        return debug(ctx, options, args[1:])
    from wherry.cli.commands import builder
    from wherry.cli.grammar.flags import Options as Parsed

    if len(args) > 1:
        return builder.show(ctx, Parsed(builder.SHOW.flags), args[1:])
    return builder.history(ctx, Parsed(builder.HISTORY.flags), [])


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
