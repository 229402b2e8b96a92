"""The client as a process on a terminal and in pipelines: raw mode, sizes, signals, detach keys."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import ssl
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import Exchange, FakeDaemon, Reply, frame
from patience import Deadline, patiently, until

from conftest import Serve
from wherry.cli.terminal import detach
from wherry.errors import InvalidArgument

ID = "a" * 64
PROGRAM = [sys.executable, "-c", "import sys; from wherry.cli.main import entry; sys.exit(entry())"]
DEADLINE = 20.0


class Container:
    """A container whose terminal echoes in capitals and that ends with code 7 at a ``q``."""

    def __init__(self) -> None:
        self.started, self.ended = threading.Event(), threading.Event()
        self.typed = b""
        self.code = 7

    def routes(self) -> dict[str, Any]:
        return {
            "POST /containers/create": lambda x: Reply({"Id": ID, "Warnings": []}, 201),
            f"POST /containers/{ID}/attach": self.attach,
            f"POST /containers/{ID}/wait": self.wait,
            f"POST /containers/{ID}/start": self.start,
            f"POST /containers/{ID}/resize": lambda x: Reply(b""),
            f"POST /containers/{ID}/kill": self.kill,
            f"GET /containers/{ID}/json": lambda x: {"Id": ID, "State": {"Running": True}},
        }

    def start(self, x: Exchange) -> Reply:
        self.started.set()
        return Reply(b"", 204)

    def attach(self, x: Exchange) -> None:
        x.upgrade()
        self.started.wait(patiently(DEADLINE))
        x.sock.sendall(b"ready\r\n")
        while piece := x.sock.recv(100):
            self.typed += piece
            x.sock.sendall(piece.upper())
            if b"q" in piece:
                self.ended.set()
                break
        x.sock.close()

    def wait(self, x: Exchange) -> Iterator[bytes]:
        yield b" "
        self.ended.wait(patiently(DEADLINE))
        yield b'{"StatusCode":%d}' % self.code

    def kill(self, x: Exchange) -> Reply:
        self.code = 99
        self.ended.set()
        return Reply(b"", 204)


class Terminal:
    """A pseudo terminal with a program on it."""

    def __init__(self, argv: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(30, 90)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            argv, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True
        )

    def resize(self, height: int, width: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def expect(self, text: bytes) -> None:
        deadline = Deadline(DEADLINE)
        while text not in self.output:
            assert not deadline.passed, self.output
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 1000)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def close(self) -> int:
        try:
            return self.process.wait(patiently(DEADLINE))
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.master)
            os.close(self.slave)


def on_terminal(daemon: FakeDaemon) -> Terminal:
    terminal = Terminal([*PROGRAM, "-H", daemon.host, "run", "-it", "busybox", "sh"])
    terminal.expect(b"ready")
    until(lambda: terminal.is_raw)
    return terminal


def test_a_terminal_is_raw_while_it_runs_and_restored_after(serve: Serve) -> None:
    container = Container()
    daemon = serve(container.routes())
    terminal = on_terminal(daemon)
    terminal.type(b"ab\x03")
    terminal.expect(b"AB\x03")
    terminal.resize(40, 120)
    terminal.process.send_signal(signal.SIGWINCH)
    resize = f"POST /containers/{ID}/resize"
    until(lambda: {"h": "40", "w": "120"} in [r.query for r in daemon.asked(resize)])
    assert daemon.asked(resize)[0].query == {"h": "30", "w": "90"}
    assert daemon.asked("POST /containers/create")[0].json["HostConfig"]["ConsoleSize"] == [30, 90]
    terminal.type(b"q")
    until(lambda: terminal.process.poll() is not None)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert terminal.close() == 7


def test_a_terminal_is_restored_when_the_client_is_terminated(serve: Serve) -> None:
    container = Container()
    terminal = on_terminal(serve(container.routes()))
    terminal.process.send_signal(signal.SIGTERM)
    until(lambda: terminal.process.poll() is not None)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert terminal.close() == 128 + signal.SIGTERM
    container.ended.set()


def test_detach_keys_leave_it_running(serve: Serve) -> None:
    container = Container()
    terminal = on_terminal(serve(container.routes()))
    terminal.type(b"x\x10")
    terminal.type(b"y")
    terminal.expect(b"X\x10Y")
    terminal.type(b"\x10\x11")
    assert terminal.close() == 0
    assert container.typed == b"x\x10y"
    assert not container.ended.is_set()
    container.ended.set()


def plain(container_routes: dict[str, Any]) -> dict[str, Any]:
    def attach(x: Exchange) -> None:
        x.upgrade()
        data = x.read_to_end()
        x.sock.sendall(frame(1, data[::-1]) + frame(2, b"done\n"))
        x.sock.close()

    return container_routes | {f"POST /containers/{ID}/attach": attach}


def test_stdin_goes_in_to_its_end_and_output_comes_back(serve: Serve) -> None:
    container = Container()
    container.ended.set()
    daemon = serve(plain(container.routes()))
    data = os.urandom(3_000_000)
    done = subprocess.run(
        [*PROGRAM, "-H", daemon.host, "run", "-i", "busybox", "rev"],
        input=data,
        capture_output=True,
        timeout=patiently(DEADLINE),
        check=False,
    )
    assert done.stdout == data[::-1]
    assert (done.returncode, done.stderr) == (7, b"done\n")


def test_a_large_echo_cannot_wedge_both_sides(serve: Serve) -> None:
    def echo(x: Exchange) -> None:
        x.upgrade()
        while piece := x.sock.recv(65536):
            x.sock.sendall(frame(1, piece))
        x.sock.close()

    container = Container()
    container.ended.set()
    daemon = serve(container.routes() | {f"POST /containers/{ID}/attach": echo})
    data = os.urandom(4_000_000)
    done = subprocess.run(
        [*PROGRAM, "-H", daemon.host, "run", "-i", "busybox", "cat"],
        input=data,
        capture_output=True,
        timeout=patiently(DEADLINE),
        check=False,
    )
    assert done.stdout == data


def test_streams_over_tls() -> None:
    place = Path(__file__).parents[2] / "client/tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    container = Container()
    container.ended.set()
    data = os.urandom(500_000)
    with FakeDaemon(None, plain(container.routes()), tls=context) as daemon:
        flags = ["-H", daemon.host, "--tlsverify", "--tlscacert", str(place / "cert.pem")]
        done = subprocess.run(
            [*PROGRAM, *flags, "run", "-i", "busybox", "rev"],
            input=data,
            capture_output=True,
            timeout=patiently(DEADLINE),
            check=False,
        )
    assert (done.returncode, done.stderr) == (7, b"done\n")
    assert done.stdout == data[::-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on_without_a_terminal(serve: Serve, number: signal.Signals) -> None:
    container = Container()
    ended = container.ended

    def attach(x: Exchange) -> None:
        x.upgrade()
        x.sock.sendall(frame(1, b"ready\n"))
        ended.wait(patiently(DEADLINE))
        x.sock.close()

    daemon = serve(container.routes() | {f"POST /containers/{ID}/attach": attach})
    process = subprocess.Popen(
        [*PROGRAM, "-H", daemon.host, "run", "busybox", "sleep"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        until(container.started.is_set)
        process.send_signal(number)
        assert process.wait(patiently(DEADLINE)) == 99
    kills = daemon.asked(f"POST /containers/{ID}/kill")
    assert [r.query for r in kills] == [{"signal": number.name.removeprefix("SIG")}]


def test_an_interrupt_is_no_traceback(serve: Serve) -> None:
    over = threading.Event()

    def events(x: Exchange) -> Iterator[bytes]:
        yield b'{"Type":"container","Action":"x","Actor":{"ID":"1"},"time":1}\n'
        over.wait(patiently(DEADLINE))

    daemon = serve({"GET /events": events})
    with subprocess.Popen(
        [*PROGRAM, "-H", daemon.host, "events"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert b"container x 1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(patiently(DEADLINE)) == 130
        assert process.stderr.read() == b""
    over.set()


def test_a_closed_pipe_is_a_quiet_end(serve: Serve) -> None:
    def attach(x: Exchange) -> None:
        x.upgrade()
        try:
            while True:
                x.sock.sendall(frame(1, b"y\n" * 1000))
        except OSError:
            return

    container = Container()
    daemon = serve(container.routes() | {f"POST /containers/{ID}/attach": attach})
    with subprocess.Popen(
        [*PROGRAM, "-H", daemon.host, "run", "busybox", "yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(patiently(DEADLINE)) == -signal.SIGPIPE
        assert process.stderr.read() == b""
    container.ended.set()


def test_detach_key_sequences() -> None:
    assert detach.parse("") == b"\x10\x11"
    assert detach.parse("ctrl-a,x,ctrl-@,ctrl-_,ctrl-Z") == b"\x01x\x00\x1f\x1a"
    for bad in ("ctrl-", "ctrl-1", "ab", "a,,b", "é"):
        with pytest.raises(InvalidArgument, match="invalid detach keys"):
            detach.parse(bad)
    watch = detach.Watch(b"aab")
    assert watch.feed(b"xa") == (b"x", False)
    assert watch.feed(b"a") == (b"", False)
    assert watch.feed(b"a") == (b"a", False)
    assert watch.feed(b"b") == (b"", True)
