"""The command: look, say, and with ``--fix`` mend what can be mended."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wherry.doctor import checks, host, mending
from wherry.doctor.findings import Finding, Level


def options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own flags, and those of the daemon, which say where its directories are."""
    parser = argparse.ArgumentParser(
        prog="wherryd doctor",
        description="Say what this host has and lacks for containers. Flags of wherryd are taken as well.",
        allow_abbrev=False,
    )
    parser.add_argument("--fix", action="store_true", help="install the packages that are missing (Debian)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print it")
    return parser.parse_known_args(arguments)


def run(given: argparse.Namespace, directories: Sequence[Path], runtimes: Sequence[str] = ()) -> int:
    """:param directories: where the daemon keeps its state. :param runtimes: of ``daemon.json``.

    :returns: 1 if there is a problem. :raises Unavailable: a package cannot be installed.
    """
    found = checks.findings(host.gather(directories, runtimes))
    if given.fix:
        mending.install(mending.packages(found))
        found = checks.findings(host.gather(directories, runtimes))
    if given.format == "json":
        print(json.dumps([_plain(one) for one in found], indent=2))
    else:
        print(text(found), end="")
    sys.stdout.flush()
    return int(any(one.level is Level.PROBLEM for one in found))


def _plain(one: Finding) -> dict[str, str]:
    return {
        "Level": one.level.value,
        "About": one.about,
        "What": one.what,
        "Follows": one.follows,
        "Do": one.do,
    }


def text(found: Sequence[Finding]) -> str:
    """A paragraph for each finding, and what is in order in one line."""
    lines = []
    for one in found:
        if one.level is Level.OK:
            continue
        lines.append(f"{one.level.value:8} {one.about}: {one.what}")
        lines += [
            f"         {label} {words}" for label, words in (("->", one.follows), ("do:", one.do)) if words
        ]
    fine = ", ".join(f"{one.about} {one.what}" for one in found if one.level is Level.OK)
    if fine:
        lines.append(f"{'ok':8} {fine}")
    counts = {level: sum(one.level is level for one in found) for level in Level}
    lines.append(
        f"{counts[Level.PROBLEM]} problems, {counts[Level.WARNING]} warnings, {counts[Level.NOTE]} notes"
    )
    return "".join(line + "\n" for line in lines)


def warnings(directories: Sequence[Path]) -> list[str]:
    """Problems and warnings, a line each, for ``info``."""
    found = checks.findings(host.gather(directories, quick=True))
    return [f"WARNING: {one.line}" for one in found if one.level in (Level.PROBLEM, Level.WARNING)]
