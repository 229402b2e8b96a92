"""The host's ``git``, for files that a user names in a repository."""

from __future__ import annotations

import os

from wherry.errors import Internal, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROTOCOLS = "https:http:ssh:git"


def run(arguments: Sequence[str]) -> str:
    """Run ``git`` with these arguments, without hooks and questions. :returns: what it prints.

    ``GIT_ALLOW_PROTOCOL`` of the environment says which protocols it may use, by default the network's.

    :raises NotFound: there is no git. :raises Internal: it fails, with the last line that it printed.
    """
    import subprocess

    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": os.environ.get("GIT_ALLOW_PROTOCOL") or _PROTOCOLS,
    }
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise NotFound("git not found; install package git") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Internal(f"git: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")
