"""The flags between ``compose`` and the command, and those that many of its commands have."""

from __future__ import annotations

from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, INT, LIST, STRING, Kind


def _scale(text: str) -> tuple[str, int]:
    service, equals, count = text.partition("=")
    if not equals or not service or not count.isdecimal():
        raise ValueError("invalid --scale option: write SERVICE=NUM")
    return service, int(count)


SCALES = Kind("scale", _scale, repeats=True)

GLOBAL = (
    Flag("all-resources", "", BOOL, "Include all resources, even those not used by services"),
    Flag(
        "ansi",
        "",
        STRING,
        'Control when to print ANSI control characters ("never"|"always"|"auto")',
        default="auto",
        shown='"auto"',
        complete="never always auto",
    ),
    Flag("compatibility", "", BOOL, "Name containers with underscores, as docker-compose 1 did"),
    Flag("dry-run", "", BOOL, "Say what would be done, and do nothing"),
    Flag("env-file", "", LIST, "Specify an alternate environment file", complete="file"),
    Flag("file", "f", LIST, "Compose configuration files", complete="file"),
    Flag(
        "parallel",
        "",
        INT,
        "Control max parallelism, -1 for unlimited",
        default=-1,
        shown="-1",
    ),
    Flag("profile", "", LIST, "Specify a profile to enable"),
    Flag(
        "progress",
        "",
        STRING,
        "Set type of progress output (auto, tty, plain, json, quiet)",
        complete="auto tty plain json quiet",
    ),
    Flag(
        "project-directory",
        "",
        STRING,
        "Specify an alternate working directory (default: the directory of the first Compose file)",
        complete="file",
    ),
    Flag("project-name", "p", STRING, "Project name"),
)

DRY_RUN = Flag("dry-run", "", BOOL, "Say what would be done, and do nothing")
INDEX = Flag("index", "", INT, "Index of the container if service has multiple replicas")
TIMEOUT = Flag("timeout", "t", INT, "Specify a shutdown timeout in seconds")
REMOVE_ORPHANS = Flag(
    "remove-orphans", "", BOOL, "Remove containers for services not defined in the Compose file"
)
SCALE = Flag(
    "scale",
    "",
    SCALES,
    "Scale SERVICE to NUM instances. Overrides the scale setting in the Compose file if present.",
)
YES = Flag("yes", "y", BOOL, 'Assume "yes" as answer to all prompts and run non-interactively')
QUIET_PULL = Flag("quiet-pull", "", BOOL, "Pull without printing progress information")
