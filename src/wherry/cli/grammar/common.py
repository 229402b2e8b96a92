"""Flags that several commands share."""

from __future__ import annotations

from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, FILTER, STRING

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
