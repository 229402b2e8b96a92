"""The definition of a command: its usage, its flags, the number of its arguments, and its function."""

from __future__ import annotations

import os
import sys

from wherry.cli.console import indented, on_terminal, one_line, safe
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import STRING
from wherry.client import discovery

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.cli.grammar.flags import Options
    from wherry.client.api import Api
    from wherry.client.endpoint import DaemonEndpoint

    Run = Callable[["Context", Options, list[str]], int]

UNLIMITED = -1
CONTEXTS = Flag(
    "context", "", STRING, 'Ask several daemons at once: "a,b", or "all" contexts', complete="context"
)


class Failure(Exception):
    """Ends a command: ``text`` is written to stderr unchanged, ``code`` is the exit code.

    Only for the CLI's own errors; library rooms raise those of :mod:`wherry.errors`.
    """

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.text, self.code = text, code


class Command:
    """One command.

    ``usage`` follows the command's name in help; ``least`` and ``most`` bound its arguments; ``complete``
    names the kinds of the arguments, for completion (one word for each position, the last repeats).
    ``several`` commands only read, and can be sent to several daemons at once
    (:mod:`wherry.cli.daemons.several`). ``prefixed`` commands print ``wherry: `` before an error and a hint
    after it, and exit with 125.
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
    """The context of a command: the daemon, the configuration, output, its own name.

    :ivar path: the command's whole name, such as ``wherry image ls``.
    :ivar group: the flags of the command's group, if it has any of its own.
    :ivar several: the contexts that are asked at once, ordered; empty if it is one daemon.
    """

    def __init__(
        self,
        wanted: discovery.WantedDaemon,
        *,
        config: str = "",
        debug: bool = False,
        path: str = "wherry",
        group: Options | None = None,
        several: Sequence[str] = (),
        start_daemon: bool = True,
        connect_timeout: float | None = None,
    ) -> None:
        """:param start_daemon: start root's default daemon if a command needs it and it does not run.
        :param connect_timeout: seconds within which a connection must be made; None: the transport's own.
        """
        self.path, self.group, self.debug, self.wanted = path, group, debug, wanted
        self.config_dir = discovery.config_dir(os.environ, config)
        self.several = tuple(several)
        self._start_daemon, self._connect_timeout = start_daemon, connect_timeout
        self._api: Api | None = None
        self._config: dict[str, Any] | None = None

    def derived(
        self,
        wanted: discovery.WantedDaemon | None = None,
        *,
        path: str = "",
        group: Options | None = None,
        several: Sequence[str] = (),
        start_daemon: bool = True,
        connect_timeout: float | None = None,
    ) -> Context:
        """A context of its own for the same command line; the caller closes it."""
        return Context(
            wanted or self.wanted,
            config=self.config_dir,
            debug=self.debug,
            path=path or self.path,
            group=group or self.group,
            several=several,
            start_daemon=start_daemon,
            connect_timeout=connect_timeout,
        )

    @property
    def config(self) -> dict[str, Any]:
        if self._config is None:
            self._config = discovery.read_config(self.config_dir)
        return self._config

    def setting(self, name: str) -> str:
        """A text value of config.json; empty if it is not set."""
        value = self.config.get(name)
        return value if isinstance(value, str) else ""

    @property
    def context_name(self) -> str:
        return discovery.current(self.wanted, os.environ, self.config_dir)

    def find_endpoint(self) -> tuple[DaemonEndpoint, bool]:
        return discovery.find(self.wanted, os.environ, self.config_dir)

    @property
    def api(self) -> Api:
        """The session with the daemon; root's default daemon is started if it does not run."""
        if self._api is None:
            from wherry.client.api import Api

            endpoint, is_default = self.find_endpoint()
            if self._start_daemon and is_default and endpoint.scheme == "unix" and os.geteuid() == 0:
                self._start_daemon_if_away(endpoint)
            if self._connect_timeout is not None:
                endpoint = endpoint.within(self._connect_timeout)
            self._api = Api(
                endpoint, version=os.environ.get("DOCKER_API_VERSION", ""), headers=self.request_headers()
            )
        return self._api

    def request_headers(self) -> dict[str, str]:
        from wherry import __version__

        headers = {"User-Agent": f"wherry/{__version__} (linux)"}
        extra = self.config.get("HttpHeaders")
        if isinstance(extra, dict):
            headers.update((str(k), str(v)) for k, v in extra.items())
        return headers

    def _start_daemon_if_away(self, endpoint: DaemonEndpoint) -> None:
        from wherry.client.endpoint import CannotConnect
        from wherry.client.transport import connect

        try:
            connect(endpoint).close()
        except CannotConnect:
            from wherry.cli.daemons.local import start_default

            start_default(endpoint)

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def say(self, text: str = "") -> None:
        """Write text and a line break to stdout, fit for a terminal. Use :meth:`line` for a line with foreign
        text."""
        sys.stdout.write(safe(text) + "\n")

    def line(self, text: str) -> None:
        """Write exactly one line to stdout, whatever ``text`` contains."""
        sys.stdout.write(one_line(text) + "\n")

    def raw(self, text: str) -> None:
        """Write the result of a format (JSON, templates) and a line break to stdout. On a terminal control
        characters are escaped."""
        sys.stdout.write((safe(text) if on_terminal(1) else text) + "\n")

    def write(self, text: str) -> None:
        """Write lines to stdout, fit for a terminal."""
        sys.stdout.write(safe(text))

    def complain(self, text: str) -> None:
        """Flush stdout, then write a line to stderr."""
        sys.stdout.flush()
        sys.stderr.write(safe(text) + "\n")
        sys.stderr.flush()


def each(ctx: Context, names: Sequence[str], action: Callable[[str], str | None]) -> int:
    """Call ``action`` for every name and print its result; continue after failures, as Docker does."""
    from wherry.errors import WherryError

    failed = False
    for name in names:
        try:
            said = action(name)
        except WherryError as e:
            failed = True
            ctx.complain(indented(e.message))
            continue
        if said is not None:
            ctx.line(said)
    return 1 if failed else 0
