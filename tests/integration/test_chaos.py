"""The daemon is killed at random moments while many clients use it at once. Nothing acknowledged is lost.

Each client owns the containers it makes and notes what the daemon has acknowledged: a request whose answer
did not come is open, and may have happened or not. After every kill a new daemon starts on the same root, and
its state is held against those notes; after the last one so is the host.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import random
import signal
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chaosthings import Things
from daemonlab import TIMEOUT, Answer, LabDaemon, new_base, wait_until
from patience import patiently
from registrylab import LabRegistry, registry

pytestmark = pytest.mark.kernel

CLIENTS = 6
LOST = (OSError, http.client.HTTPException, ValueError)
"""What a client sees of a daemon that dies while it is asked."""


@dataclass
class Known:
    """What a client knows of one container: ``state`` is None while a request is open."""

    id: str
    state: str | None = "created"
    code: int | None = None


class Unanswered(Exception):
    """The daemon died before it answered, or there is nothing to do it with."""


class Gate:
    """Lets clients work, or holds them back and waits until none does."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._held = False
        self._working = 0

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._held)
            self._working += 1
        try:
            yield
        finally:
            with self._condition:
                self._working -= 1
                self._condition.notify_all()

    def hold(self) -> None:
        with self._condition:
            self._held = True
            assert self._condition.wait_for(lambda: self._working == 0, patiently(TIMEOUT)), "a client hangs"

    def go(self) -> None:
        with self._condition:
            self._held = False
            self._condition.notify_all()


@dataclass
class Client:
    """One of several that work at the same time, each on containers of its own."""

    name: str
    daemon: LabDaemon
    random: random.Random
    gate: Gate
    stop: threading.Event
    known: dict[str, Known] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    number: int = 0
    registry: str = ""
    things: Things = field(init=False)

    def __post_init__(self) -> None:
        self.things = Things(self.name, self.ask, self.random, self.registry)

    def run(self) -> None:
        works = [
            *(self.run_one, self.run_one, self.keep_one, self.stop_one, self.remove_one, self.remove_one),
            *(self.exec_one, self.copy_one, self.commit_one, self.restart_one, *self.things.works),
        ]
        while not self.stop.is_set():
            work = self.random.choice(works)
            with self.gate.passed():
                try:
                    work()
                    self.done[work.__name__] = self.done.get(work.__name__, 0) + 1
                except Unanswered:
                    pause(0.005)
                except Exception as e:
                    self.failures.append(f"{work.__name__}: {e!r}")
                    return

    def ask(self, method: str, path: str, body: object = None, **query: object) -> Answer:
        try:
            answer = self.daemon.api(method, path, body, **query)
        except LOST as e:
            raise Unanswered from e
        if answer.status >= 500 and answer.status != 501:
            raise AssertionError(f"{method} {path}: {answer.status} {answer.body!r}")
        return answer

    def create(self, command: list[str], **host: object) -> Known:
        self.number += 1
        name = f"{self.name}-{self.number}"
        body = {"Image": "busybox", "Cmd": command, "HostConfig": host}
        answer = self.ask("POST", f"/containers/create?name={name}", body)
        assert answer.status == 201, answer.body
        known = Known(answer.json["Id"])
        self.known[known.id] = known
        return known

    def start(self, known: Known) -> None:
        known.state = None
        answer = self.ask("POST", f"/containers/{known.id}/start")
        assert answer.status in (204, 304), answer.body
        known.state = "running"

    def one(self, *states: str) -> Known:
        found = [k for k in self.known.values() if k.state in states]
        if not found:
            raise Unanswered
        return self.random.choice(found)

    def run_one(self) -> None:
        """A short container, waited for: its exit code is known once it is acknowledged."""
        code = self.random.randrange(1, 100)
        known = self.create(["sh", "-c", f"exit {code}"])
        self.start(known)
        known.state, known.code = "exited", code
        answer = self.ask("POST", f"/containers/{known.id}/wait")
        assert answer.json["StatusCode"] == code, answer.body

    def keep_one(self) -> None:
        """A container that runs on, with a port, a volume of its own and a file in it."""
        ports = {"80/tcp": [{"HostIp": "127.0.0.1"}]}
        self.start(self.create(["sleep", "1000"], PortBindings=ports, Binds=["/data"], Memory=1 << 27))

    def stop_one(self) -> None:
        known = self.one("running")
        known.state = None
        self.ask("POST", f"/containers/{known.id}/stop?t=0")
        known.state, known.code = "exited", 137

    def restart_one(self) -> None:
        known = self.one("exited", "running")
        if known.code != 137 and known.state == "exited":
            raise Unanswered
        known.state = known.code = None
        self.ask("POST", f"/containers/{known.id}/restart?t=0")
        known.state = "running"

    def remove_one(self) -> None:
        known = self.one("created", "exited", "running")
        known.state = None
        answer = self.ask("DELETE", f"/containers/{known.id}?force=1&v=1")
        assert answer.status in (204, 404), answer.body
        del self.known[known.id]
        self.gone.add(known.id)

    def exec_one(self) -> None:
        known = self.one("running")
        body = {"Cmd": ["sh", "-c", "echo in; exit 7"], "AttachStdout": True}
        answer = self.ask("POST", f"/containers/{known.id}/exec", body)
        if answer.status != 201:
            return
        exec_id = answer.json["Id"]
        began = self.ask("POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": False})
        answer = self.ask("GET", f"/exec/{exec_id}/json")
        if answer.status == 200 and answer.json["ExitCode"] is not None:
            assert answer.json["ExitCode"] == 7, (answer.json, began.status, began.body)

    def copy_one(self) -> None:
        known = self.one("running", "created", "exited")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            info = tarfile.TarInfo(f"file{self.number}")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        answer = self.ask("PUT", f"/containers/{known.id}/archive?path=/tmp", data.getvalue())
        assert answer.status in (200, 501), answer.body
        if answer.status == 200:
            answer = self.ask("GET", f"/containers/{known.id}/archive?path=/tmp/file{self.number}")
            assert answer.status == 200 and len(answer.body) >= 100_000, answer.status

    def commit_one(self) -> None:
        known = self.one("running", "exited")
        answer = self.ask(
            "POST", f"/commit?container={known.id}&repo=chaos&tag=t{self.random.randrange(4)}", {}
        )
        assert answer.status in (201, 501), answer.body


def pause(seconds: float) -> None:
    """For clients of a dead daemon, and between kills; nothing depends on its length."""
    threading.Event().wait(seconds)


@contextlib.contextmanager
def load(daemon: LabDaemon, seed: int, registry: str) -> Iterator[tuple[list[Client], Gate]]:
    """Clients at work until the end of the block."""
    gate, stop = Gate(), threading.Event()
    clients = [
        Client(f"c{n}", daemon, random.Random(f"{seed}/{n}"), gate, stop, registry=registry)
        for n in range(CLIENTS)
    ]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield clients, gate
    finally:
        stop.set()
        gate.go()
        for thread in threads:
            thread.join(patiently(TIMEOUT * 2))


def verify(daemon: LabDaemon, clients: list[Client]) -> None:
    """Hold what the daemon says, and what the kernel has, against what was acknowledged."""
    listed = set(daemon.containers())
    for client in clients:
        assert not client.failures, client.failures
        for known in client.known.values():
            if known.state is None:
                continue
            assert known.id in listed, f"{known.id[:12]} was acknowledged as {known.state} and is lost"
            with contextlib.suppress(AssertionError):
                wait_until(lambda k=known: daemon.state_of(k.id)["Status"] == k.state, timeout=10)
            state = daemon.state_of(known.id)
            assert state["Status"] == known.state, (known, state)
            if known.state == "running":
                assert os.path.exists(f"/proc/{state['Pid']}"), known
                os.kill(state["Pid"], 0)
            elif known.state == "exited" and known.code is not None:
                assert state["ExitCode"] == known.code, (known, state)
        assert not client.gone & listed, "a removed container is back"
        client.things.verify(daemon)


def settle(daemon: LabDaemon, clients: list[Client]) -> None:
    """Learn how the open requests ended."""
    for client in clients:
        for known in list(client.known.values()):
            if known.state is not None:
                continue
            answer = daemon.api("GET", f"/containers/{known.id}/json")
            if answer.status == 404:
                del client.known[known.id]
                continue
            known.state = answer.json["State"]["Status"]
            known.code = answer.json["State"]["ExitCode"] if known.state == "exited" else None
        client.things.settle(daemon)


def chaos(kills: int, seed: int) -> None:
    with registry() as lab:
        chaos_beside(lab, kills, seed)


def chaos_beside(lab: LabRegistry, kills: int, seed: int) -> None:
    daemon = LabDaemon(new_base())
    chance = random.Random(seed)
    try:
        daemon.start()
        daemon.bootstrap()
        before = {t for t in daemon.traces() if not t.startswith("descriptors")}
        images = daemon.images()
        with load(daemon, seed, lab.host) as (clients, gate):
            for _ in range(kills):
                # Now and then long enough for a build or a push to come to its end.
                pause(chance.uniform(0.02, 0.6) if chance.random() < 0.8 else chance.uniform(1, 5))
                daemon.end(signal.SIGKILL)
                gate.hold()
                daemon.start()
                verify(daemon, clients)
                settle(daemon, clients)
                gate.go()
        verify(daemon, clients)
        done = {name for client in clients for name in client.done}
        every = {work.__name__ for work in clients[0].things.works}
        assert {"run_one", "keep_one", "stop_one", "remove_one", "exec_one", *every} <= done or kills < 20
        daemon.remove_containers()
        for client in clients:
            client.things.remove(daemon)
        for image in daemon.images() - images:
            daemon.api("DELETE", f"/images/{image}?force=1")
        daemon.api("POST", "/build/prune?all=1")
        daemon.restart()
        try:
            wait_until(lambda: not left(daemon, before), timeout=10)
        except AssertionError:
            raise AssertionError("\n  ".join(shown(left(daemon, before)))) from None
    except (AssertionError, *LOST) as e:
        raise AssertionError(f"seed {seed}: {e!r}\n{daemon.log[-20000:]}") from e
    finally:
        daemon.destroy()


def shown(names: list[str]) -> list[str]:
    """With what is in the directories that are left: it tells who left them."""
    paths = [Path(name.rpartition(" ")[2]) for name in names if ": entry " in name]
    return [*names, *(str(entry) for path in paths for entry in path.rglob("*"))]


def left(daemon: LabDaemon, before: set[str]) -> list[str]:
    return [t for t in daemon.difference(before) if not t.startswith("left behind: descriptors")]


@pytest.mark.patient(90)
def test_killed_at_a_few_moments() -> None:
    chaos(kills=6, seed=random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.fault("SIGKILL at random moments, 6 clients", "200 rounds")
@pytest.mark.patient(1800)
def test_killed_at_two_hundred_moments() -> None:
    chaos(kills=200, seed=random.randrange(10**6))
