"""Attaching to a container: before it starts (``run``, ``start -a``) or while it runs (``attach``)."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from wherry.cli.command import Failure
from wherry.cli.console import on_terminal
from wherry.cli.terminal import detach, device, signals
from wherry.cli.terminal.interact import Interaction, output
from wherry.cli.terminal.signals import SIGINT, SIGTERM, SIGWINCH
from wherry.client import containers
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.client.api import Api, Hijacked
    from wherry.client.http import Response

DETACHED = 0


class Attachment:
    """One container's streams joined to ours."""

    def __init__(
        self,
        ctx: Context,
        identifier: str,
        *,
        stdin: bool,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool,
        detach_keys: str = "",
        proxy_signals: bool,
    ) -> None:
        self.ctx, self.identifier = ctx, identifier
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.tty, self.detach_keys, self.proxy = tty, detach_keys, proxy_signals
        self._watch = detach.Watch(detach.parse(detach_keys)) if tty and stdin else None
        self._control: Api | None = None
        """A second session: the first one's connection may be busy with the wait."""

    # the two ways in

    def start_and_wait(self, condition: str) -> int:
        """Attach, start, copy until the end; returns the container's exit code.

        The wait is asked before the start, or a container that ends at once would never be seen.
        """
        with ExitStack() as stack:
            self._open_control(stack)
            pipe = stack.enter_context(signals.SignalPipe(self._caught()))
            connection = self._attach(stack) if self.stdin or self.stdout or self.stderr else None
            waiting = containers.wait(self.ctx.api, self.identifier, condition)
            stack.callback(waiting.connection.close)
            try:
                containers.start(self.control, self.identifier, detach_keys=self.detach_keys)
            except WherryError as e:
                from wherry.cli.exitcodes import start_failure

                raise start_failure(e, self.ctx.path) from e
            raw = stack.enter_context(device.RawMode(0)) if self._raw() else None
            self._resize()
            if connection is not None:
                detached = self._converse(connection, pipe)
                if raw is not None:
                    raw.restore()
                if detached:
                    return DETACHED
            return self._finish(waiting, pipe)

    def join(self, waiting: Response) -> int:
        """Attach to a running container and copy until its end, or until the person detaches."""
        with ExitStack() as stack:
            self._open_control(stack)
            pipe = stack.enter_context(signals.SignalPipe(self._caught()))
            stack.callback(waiting.connection.close)
            connection = self._attach(stack)
            raw = stack.enter_context(device.RawMode(0)) if self._raw() else None
            self._resize(nudge=True)
            detached = self._converse(connection, pipe)
            if raw is not None:
                raw.restore()
            if detached:
                raise Failure("read escape sequence")
            return self._finish(waiting, pipe)

    # parts

    @property
    def control(self) -> Api:
        assert self._control is not None
        return self._control

    def _open_control(self, stack: ExitStack) -> None:
        from wherry.client.api import Api

        api = self.ctx.api
        self._control = stack.enter_context(Api(api.endpoint, version=api.version))

    def _caught(self) -> list[int]:
        if self.proxy:
            return [*signals.proxied(), SIGWINCH]
        return [SIGWINCH, SIGTERM, *([] if self.tty else [SIGINT])]

    def _raw(self) -> bool:
        return self.tty and self.stdin and on_terminal(0)

    def _attach(self, stack: ExitStack) -> Hijacked:
        sys.stdout.flush()
        return stack.enter_context(
            containers.attach(
                self.ctx.api,
                self.identifier,
                stdin=self.stdin,
                stdout=self.stdout,
                stderr=self.stderr,
                detach_keys=self.detach_keys,
            )
        )

    def _converse(self, connection: Hijacked, pipe: signals.SignalPipe) -> bool:
        """Copy until the end; True when the person detached."""
        session = Interaction(
            connection,
            output(self.tty, stdout=self.stdout, stderr=self.stderr),
            stdin=0 if self.stdin else None,
            watch=self._watch,
            signals=pipe,
            on_signal=self._on_signal,
        )
        session.run()
        return session.detached

    def _on_signal(self, number: int) -> None:
        if number == SIGWINCH:
            self._resize()
            return
        if not self.proxy:
            raise SystemExit(128 + number)
        try:
            containers.kill(self.control, self.identifier, signals.name(number))
        except WherryError:
            pass  # the container has ended; its exit code is on its way

    def _resize(self, *, nudge: bool = False) -> None:
        """Tell the daemon our size; ``nudge`` changes it twice, so that a full-screen program redraws."""
        height, width = device.size()
        if not self.tty or not height or not width:
            return
        try:
            if nudge:
                containers.resize(self.control, self.identifier, height + 1, width + 1)
            containers.resize(self.control, self.identifier, height, width)
        except WherryError:
            pass  # the container has ended, or has not opened its terminal yet: nothing to size

    def _finish(self, waiting: Response, pipe: signals.SignalPipe) -> int:
        """Read the exit code; signals are still passed on while the container ends."""
        import select

        poll = select.poll()
        poll.register(pipe.fileno(), select.POLLIN)
        stream = waiting.connection.stream
        poll.register(stream.fileno(), select.POLLIN)
        while not waiting.connection.buffered:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if pipe.fileno() in ready:
                for number in pipe.read():
                    self._on_signal(number)
            if stream.fileno() in ready:
                break
        code, problem = containers.exit_status(waiting.read_all())
        if problem:
            self.ctx.complain(f"Error waiting for container: {problem}")
            return 125
        return code
