"""Flags that several commands share, and what goes with them."""

from __future__ import annotations

import os
import sys

from wherry.cli.flags import Flag
from wherry.cli.values import BOOL, FILTER, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context

_TEMPLATE = (
    "'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template."
)
FORMAT = Flag("format", "f", STRING, "Format output using a custom template:\n" + _TEMPLATE)
FORMAT_LONG = Flag("format", "", STRING, FORMAT.text)
FORMAT_TABLE = Flag(
    "format",
    "",
    STRING,
    "Format output using a custom template:\n"
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n" + _TEMPLATE,
)
FILTERS = Flag("filter", "f", FILTER, "Filter output based on conditions provided")
NO_TRUNC = Flag("no-trunc", "", BOOL, "Don't truncate output")
DETACH_KEYS = Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container")
FORCE_PRUNE = Flag("force", "f", BOOL, "Do not prompt for confirmation")
PLATFORM = Flag(
    "platform",
    "",
    STRING,
    'Take the variant for this platform, "os[/arch[/variant]]" (e.g., "linux/amd64")',
)


def confirm(ctx: Context, question: str) -> bool:
    """Ask on the terminal; anything but ``y`` or ``yes`` is no."""
    ctx.write(f"{question} [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline()
    return answer.strip().lower() in ("y", "yes")


def on_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
