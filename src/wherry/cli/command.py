"""What a command is: its usage, its flags, how many arguments it takes, and the function that does it."""

from __future__ import annotations

import os
import sys

from wherry.cli.flags import Flag
from wherry.cli.values import STRING
from wherry.client import discovery

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.cli.flags import Options
    from wherry.client.api import Api
    from wherry.client.transport import Endpoint

    Run = Callable[["Context", Options, list[str]], int]

UNLIMITED = -1
CONTEXTS = Flag(
    "context", "", STRING, 'Ask several daemons at once: "a,b", or "all" contexts', complete="context"
)


class Failure(Exception):
    """Ends a command: ``text`` goes to stderr as it is, ``code`` is the exit code.

    Only for what is no answer of a library room; those raise from :mod:`wherry.errors`.
    """

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.text, self.code = text, code


class Command:
    """One command.

    ``usage`` follows the command's name in help; ``least`` and ``most`` bound its arguments; ``complete``
    says what the arguments are, for completion (a space-separated word a position, the last repeats).
    ``several`` commands only read and may be asked of several daemons at once (:mod:`wherry.cli.several`).
    ``prefixed`` commands print ``wherry: `` before an error and a hint after it, and exit with 125.
    """

    __slots__ = (
        "complete",
        "description",
        "flags",
        "interspersed",
        "least",
        "most",
        "prefixed",
        "run",
        "several",
        "usage",
    )

    def __init__(
        self,
        usage: str,
        run: Run,
        flags: Sequence[Flag] = (),
        *,
        least: int = 0,
        most: int = 0,
        interspersed: bool = True,
        prefixed: bool = False,
        several: bool = False,
        complete: str = "",
        description: str = "",
    ) -> None:
        self.usage, self.run, self.several = usage, run, several
        self.flags = (*flags, CONTEXTS) if several else tuple(flags)
        self.least, self.most = least, most
        self.interspersed, self.prefixed = interspersed, prefixed
        self.complete, self.description = complete, description


class Context:
    """What a command is given: the daemon, the configuration, somewhere to write, its own name."""

    def __init__(self, wanted: discovery.Wanted, *, config: str = "", debug: bool = False) -> None:
        self.path = "wherry"
        self.debug = debug
        self.wanted = wanted
        self.config_dir = discovery.config_dir(os.environ, config)
        self.start_daemon = True
        """Whether root's default daemon is started when a command needs it and it is not there."""
        self.connect_timeout: float | None = None
        """Seconds until a connection must be there; None leaves it to the transport."""
        self.several: list[str] = []
        """The contexts that are asked at once, ordered; empty when it is one daemon."""
        self._api: Api | None = None
        self._config: dict[str, Any] | None = None

    @property
    def config(self) -> dict[str, Any]:
        if self._config is None:
            self._config = discovery.read_config(self.config_dir)
        return self._config

    def setting(self, name: str) -> str:
        """A text value of config.json; empty where there is none."""
        value = self.config.get(name)
        return value if isinstance(value, str) else ""

    @property
    def context_name(self) -> str:
        return discovery.current(self.wanted, os.environ, self.config_dir)

    def member(self, name: str) -> Context:
        """The same command line with one context of several. Nothing is started for its sake."""
        from wherry.cli.several import PATIENCE

        member = Context(discovery.Wanted(context=name), config=self.config_dir, debug=self.debug)
        member.path, member.start_daemon, member.connect_timeout = self.path, False, PATIENCE
        return member

    def find_endpoint(self) -> tuple[Endpoint, bool]:
        return discovery.find(self.wanted, os.environ, self.config_dir)

    @property
    def api(self) -> Api:
        """The session with the daemon; root's default daemon is started where it is not running."""
        if self._api is None:
            from wherry.client.api import Api

            endpoint, is_default = self.find_endpoint()
            if self.start_daemon and is_default and endpoint.scheme == "unix" and os.geteuid() == 0:
                self._start_daemon_if_away(endpoint)
            if self.connect_timeout is not None:
                endpoint.connect_timeout = self.connect_timeout
            self._api = Api(
                endpoint, version=os.environ.get("DOCKER_API_VERSION", ""), headers=self._headers()
            )
        return self._api

    def _headers(self) -> dict[str, str]:
        from wherry import __version__

        headers = {"User-Agent": f"wherry/{__version__} (linux)"}
        extra = self.config.get("HttpHeaders")
        if isinstance(extra, dict):
            headers.update((str(k), str(v)) for k, v in extra.items())
        return headers

    def _start_daemon_if_away(self, endpoint: Endpoint) -> None:
        from wherry.client.transport import CannotConnect, connect

        try:
            connect(endpoint).close()
        except CannotConnect:
            from wherry.cli.localdaemon import start_default

            start_default(endpoint)

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def say(self, text: str = "") -> None:
        """Write a line to stdout."""
        sys.stdout.write(text + "\n")

    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def complain(self, text: str) -> None:
        """Write a line to stderr, after what stdout holds."""
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def each(ctx: Context, names: Sequence[str], action: Callable[[str], str | None]) -> int:
    """Do ``action`` for every name, print what it returns, and go on past failures, as Docker does."""
    from wherry.errors import WherryError

    failed = False
    for name in names:
        try:
            said = action(name)
        except WherryError as e:
            failed = True
            ctx.complain(safe(e.message))
            continue
        if said is not None:
            ctx.say(safe(said))
    return 1 if failed else 0


def safe(text: str) -> str:
    """Text fit for a terminal: control characters are shown as escapes, line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or not _is_control(c) else f"\\x{ord(c):02x}" for c in text
    )


def _is_control(char: str) -> bool:
    code = ord(char)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
